"""The pool of worker processes: whatever an item does to its worker, the others have their results."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.tasks import behave
from tfds_mosmed import workers
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.errors import UserError
from tfds_mosmed.workers import Failure, isolated_map

ROOT = Path(__file__).resolve().parents[2]


def run(tasks, seconds=8.0, workers=2):
    with isolated_map(behave, tasks, lambda task: seconds, workers) as results:
        return list(results)


def test_results_come_in_order_whatever_happens_to_some(capfd):
    tasks = ["one", "crash", "two", "abort", "eat", "fail", "vanish", "speak", "three"]
    started = time.monotonic()
    results = run(tasks)
    assert time.monotonic() - started < 60
    for place, words in {
        1: "crashed its reader (SIGSEGV)",
        3: "crashed its reader (SIGABRT)",
        4: "needs more than 2 GiB of memory",
        5: "cannot be read (ValueError)",
        6: "killed, as happens where memory is short",
    }.items():
        failure = results[place]
        assert isinstance(failure, Failure)
        assert words in failure.reason
        assert ";" in failure.reason  # the way out
        assert "Planted" not in failure.reason
    assert [results[place] for place in (0, 2, 7, 8)] == ["one", "two", "speak", "three"]
    assert "Planted" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("task", ["hang", "hang natively"])
def test_what_takes_too_long_is_ended(task):
    with isolated_map(behave, ["one", task, "two"], lambda task: 2.0, 1) as results:
        assert next(results) == "one"
        started = time.monotonic()
        failure = next(results)
        assert time.monotonic() - started < 10
        assert failure.reason == "took longer than 2 s to read; export it again, or leave it out"
        assert 2 <= failure.seconds < 10
        assert next(results) == "two"


def test_time_without_a_core_is_not_the_studys(monkeypatch):
    """As on a machine that has a core for the worker during a third of the time."""
    monkeypatch.setattr(workers, "_seconds_without_core", lambda pid: time.monotonic() * 2 / 3)
    assert run(["rest 1.2"], seconds=0.6, workers=1) == ["rest 1.2"]
    (failure,) = run(["hang"], seconds=0.6, workers=1)
    assert "took longer" in failure.reason


def test_the_kernel_counts_the_time_without_a_core():
    before = workers._seconds_without_core(os.getpid())
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * usable_cores())]
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            pass
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert workers._seconds_without_core(os.getpid()) > before + 0.1
    assert workers._seconds_without_core(2**30) == 0


def test_workers_import_neither_the_main_program_nor_jax():
    (modules,) = run(["modules"], workers=1)
    assert not {"jax", "tensorflow", "tensorflow_datasets", "pytest"} & set(modules)


def test_items_are_taken_a_few_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield str(number)

    with isolated_map(behave, items(), lambda task: 8.0, 2) as results:
        for number, result in enumerate(results):
            assert result == str(number)
            assert len(taken) <= number + 1 + 4
    assert len(taken) == 100


def test_large_results_arrive(tmp_path):
    (result,) = run(["large"], workers=1)
    np.testing.assert_array_equal(result, np.arange(50 << 20, dtype=np.uint8))


def test_leaving_ends_the_workers_at_once():
    with isolated_map(behave, ["process", *["hang"] * 20], lambda task: 60.0, 2) as results:
        process = psutil.Process(next(results))
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not process.is_running()  # nor a zombie


SCRIPT = """
import sys
from tests.support.tasks import behave
from tfds_mosmed.workers import isolated_map

print("started", flush=True)
with isolated_map(behave, ["process", "hang"], lambda task: 60.0, 2) as results:
    for result in results:
        print(result, flush=True)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_workers_end_with_a_script_that_has_no_main_guard(tmp_path, sign):
    (tmp_path / "script.py").write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background commands, such as these tests may be, ignore Ctrl-C, and so do their children.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "started\n"
    worker = psutil.Process(int(script.stdout.readline()))
    children = psutil.Process(script.pid).children(recursive=True)
    assert worker in children
    started = time.monotonic()
    script.send_signal(sign)
    output, errors = script.communicate(timeout=20)
    psutil.wait_procs(children, timeout=10)
    assert time.monotonic() - started < 8
    assert not any(child.is_running() for child in children)
    assert output == ""
    assert errors.count("Traceback") == (sign == signal.SIGINT)


def test_a_worker_that_does_not_start_in_time_is_told_of_as_that(monkeypatch):
    monkeypatch.setattr(workers, "START_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"did not start within 0 s; run the same command again when"):
        run(["one"], workers=1)
