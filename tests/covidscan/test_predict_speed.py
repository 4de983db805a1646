"""What predicting costs beside preparing: the network answers while the next studies are read."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.covidscan import runs

REAL_CT = os.environ.get("COVIDSCAN_REAL_CT")
PREPARE = """
import sys
import loky
from tfds_mosmed.finding import find_studies
from tfds_mosmed.preprocess import Grid
from tfds_mosmed.reading import Reading, readings

with readings(find_studies(sys.argv[1:]), Grid.parse("32x32x16"), loky.cpu_count()) as read:
    assert all(isinstance(study, Reading) for study in read)
"""


def measured(*command):
    """Seconds and highest resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=runs.ROOT,
        env=runs.environment() | {"XLA_FLAGS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def studies(count):
    """The real studies, again and again: three NIfTI files and one compressed DICOM series."""
    folder = Path(REAL_CT or "")
    each = [*sorted(folder.glob("nifti/*/*.nii.gz")), folder / "dicom/P001"]
    return [str(each[number % len(each)]) for number in range(count)]


@pytest.mark.alone
@pytest.mark.skipif(not REAL_CT, reason="COVIDSCAN_REAL_CT is not set")
def test_predicting_takes_little_longer_than_preparing_and_memory_does_not_grow(trained):
    """Of whole processes, in turn. The network is the small one of the tests: a larger one adds its own time."""
    predict = ("-m", "covidscan.predict", f"--workdir={trained}")
    measured(*predict, *studies(4))  # what is compiled is kept
    _, few = measured(*predict, *studies(20))
    ratios = []
    for _ in range(3):
        alone, _ = measured("-c", PREPARE, *studies(100))
        together, many = measured(*predict, *studies(100))
        ratios.append(together / alone)
    assert statistics.median(ratios) <= 1.15, ratios
    assert many <= 1.1 * few
