"""Builds as processes: their imports, and what they leave when they are killed, compete or find the disk full."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.support import runs
from tests.support.small_builds import STUDIES
from tfds_mosmed.building.grid_config import GridConfig
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder

REPOSITORY = Path(__file__).parents[3]


BUILD = """
import sys
from tfds_mosmed.ct_folder.ct_folder_dataset_builder import Builder
from tfds_mosmed.building.grid_config import GridConfig
builder = Builder(config=GridConfig(name="mine", grid="24x32x12"), data_dir=sys.argv[2])
builder.prepare(sys.argv[1], workers=2)
print(len(list(builder.open_records())), builder.fingerprint())
assert not {"jax", "flax", "tensorflow", "apache_beam"} & sys.modules.keys()
"""


def run(program, *args, **kwargs):
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_needs_neither_jax_nor_tensorflow_nor_beam(studies, tmp_path):
    process = run(BUILD, studies, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith(str(len(STUDIES)))
    assert ": 0 of 12 studies\n" in err  # progress
    assert out.count("\n") == 1  # and nothing else on stdout


HELD_UP_BEFORE_THE_LAST = """
import time
from tfds_mosmed.building.record_order import RecordFilter
accept = RecordFilter.accept
RecordFilter.accept = lambda self, study: accept(self, study) if len(self.rows) < 11 else time.sleep(600)
"""


def test_a_killed_build_is_not_taken_for_a_finished_one_and_starts_again(built, studies, tmp_path):
    process = run(HELD_UP_BEFORE_THE_LAST + BUILD, studies, tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("incomplete.*/*unnamed-0")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = Builder(config=GridConfig(name="mine", grid="24x32x12"), data_dir=tmp_path)
    assert not made.is_built()
    assert list(tmp_path.rglob("incomplete.*"))
    _, alive = psutil.wait_procs(workers, timeout=10)
    for orphan in alive:
        orphan.kill()
    assert not alive, "workers outlived the build"
    made.prepare(studies, workers=1)
    assert made.is_built()
    assert not list(tmp_path.rglob("incomplete.*"))
    assert made.index().study_id == built.index().study_id


def test_two_processes_that_build_at_once_build_once(studies, tmp_path):
    processes = [run(BUILD, studies, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sorted(": 12 studies in " in err for _, err in outputs) == [False, True]


@runs.may_mount
def test_complete_records_may_be_in_a_folder_that_cannot_be_written(studies, tmp_path):
    processes = []
    for _ in range(2):
        with runs.read_only(tmp_path) if processes else contextlib.nullcontext():
            process = run(BUILD, studies, tmp_path)
            processes.append((process.communicate(timeout=60), process.returncode))
    (built, _), (reused, status) = processes
    assert status == 0, reused
    assert built[0] == reused[0]


def test_a_full_disk_is_reported_in_one_line(studies, tmp_path):
    """A limit on the size of files stands for a disk that is full."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = run(limit + BUILD, studies, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"tfds_mosmed.errors.UserError: {tmp_path}: cannot be written")
    assert "make room there or give another --data_dir" in last
    assert not list(tmp_path.rglob("incomplete.*"))
