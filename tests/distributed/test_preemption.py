"""Requests to stop: where they wait, where they do not, and how the command ends."""

import os
import signal
import subprocess
import sys

import pytest

from covidscan.distributed.exits import RunAgain, StoppedByUser
from covidscan.distributed.preemption import StopRequests
from tests.support import runs


@pytest.fixture
def by_ctrl_c():
    """Handle SIGINT, which tests in a shell's background ignore."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_request_waits_until_the_run_can_save_and_is_not_forgotten(tmp_path):
    with StopRequests(tmp_path) as stop:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.reached()
        assert stop.reached()
        assert type(stop.exception("stopped")) is RunAgain


def test_ctrl_c_and_the_file_are_requests_of_a_person(by_ctrl_c, tmp_path, capfd):
    with StopRequests(tmp_path) as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached()
        assert stop.exception("stopped").status == StoppedByUser.status
    assert "Ctrl-C: stopping at the next step" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (tmp_path / "stop").touch()
    with StopRequests(tmp_path) as stop:
        assert stop.reached()  # between two folds
        assert stop.exception("stopped").status == StoppedByUser.status
    assert not (tmp_path / "stop").exists()


def test_sigterm_ends_a_command_that_has_nothing_to_save():
    program = (
        "import os, signal, time\n"
        "from covidscan.distributed.preemption import StopRequests\n"
        "with StopRequests('run'):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=runs.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75
    assert done.stderr == "stopped; the same command resumes from the last checkpoint, if there is one\n"
