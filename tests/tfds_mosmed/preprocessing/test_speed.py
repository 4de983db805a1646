"""Speed and memory of preparing real studies, relative to decompressing them."""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
from isal import igzip
from threadpoolctl import threadpool_limits

from tests.support import real_ct
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.read import read_scan

pytestmark = [pytest.mark.alone, real_ct.needed]
GRID, WINDOW_HU, HEADER_BYTES = "128x128x32", (-1024, 600), 352
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
from tfds_mosmed.building.prepare_studies import Preparation, prepare_studies
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.building.study import FileStudy, SourceFile

workers, paths = int(sys.argv[1]), sys.argv[2:]
studies = [FileStudy(str(index), "CT-0", SourceFile(Path(path))) for index, path in enumerate(paths)]
folds = {study.study_id: 0 for study in studies}
with prepare_studies(studies, Preparation(Grid.parse("128x128x32"), False, folds), workers) as prepared:
    for _ in range(8):  # processes start and import
        next(prepared)
    start = time.perf_counter()
    assert all(study.record is not None for study in prepared)
    seconds = time.perf_counter() - start
# Not getrusage for this process: Linux counts what its parent had before it became this program.
(own,) = (int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
largest = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
print(json.dumps({"seconds": seconds, "largest_mb": largest / 1024}))
"""


@pytest.fixture
def real_studies():
    return sorted(real_ct.FOLDER.glob("nifti/*/*.nii.gz"))


def test_reading_and_resizing_take_at_most_twice_as_long_as_decompressing_and_one_pass(real_studies):
    grid, ratios = Grid.parse(GRID), []
    with threadpool_limits(1):
        for path in real_studies * 5:
            start = time.process_time()
            voxels = np.frombuffer(igzip.decompress(path.read_bytes()), np.int16, offset=HEADER_BYTES)
            voxels.clip(*WINDOW_HU).astype(np.float32)  # of NumPy, whose speed relative to igzip differs by machine
            decompressed = time.process_time()
            prepare(read_scan(path), grid)
            ratios.append((time.process_time() - decompressed) / (decompressed - start))
    assert statistics.median(ratios) <= 2, ratios


def _prepared_by(workers, paths):
    command = [sys.executable, "-c", SCRIPT, str(workers), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one core")
def test_two_cores_are_nearly_twice_as_fast_as_one_with_little_memory(real_studies):
    paths, ratios = (real_studies * 20)[:48], []
    for _ in range(3):
        one, two = (_prepared_by(workers, paths) for workers in (1, 2))
        ratios.append(one["seconds"] / two["seconds"])
        assert max(one["largest_mb"], two["largest_mb"]) <= 300
    assert statistics.median(ratios) >= 1.8, ratios
