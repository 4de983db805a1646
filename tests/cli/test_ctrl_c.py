"""Ctrl-C at any moment of any command: within 3 s, with one true line, and nothing left behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support import runs, share
from tfds_mosmed.ct_phantom.generator import make_phantom, write_study

RESUMES = "stopped; the same command resumes from the last checkpoint, if there is one"
AGAIN = "stopped before the end; run the same command again"
ROWS = "stopped; the rows written so far are complete, and with --output_dir the same command continues"
COMMANDS = {  # how long it takes about, its flags, what Ctrl-C leaves
    "train": (7, "{small} --epochs=500 --workdir={out} --data_dir={data}", RESUMES),
    "train that compiles": (12, "{small} --epochs=500 --workdir={out} --data_dir={data}", RESUMES),
    "train that builds": (9, "{small} --workdir={out} --data_dir={out}", RESUMES),
    "build": (
        8,
        "--dataset=ct_phantom/tiny --data_dir={out}",
        "stopped before the records were complete; run the same command again to build them",
    ),
    "evaluate": (8, "--workdir={run}", AGAIN),
    "predict": (4, "--workdir={run} {scans}", ROWS),
    "predict --explain": (9, "--workdir={run} --explain --output_dir={out} {scans}", ROWS),
    "export": (
        5,
        "--workdir={run} --output={out}/model",
        "stopped before the model was complete; run the same command again to export it",
    ),
    "localise": (7, "--workdir={run}", AGAIN),
    "benchmark": (9, "--grid=32x32x16 --width=8 --output={out}/b.json", "stopped; nothing was written"),
}
# A shell's background commands, such as these tests may be, ignore Ctrl-C, and so do their children.
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder of four names of one study."""
    folder = tmp_path_factory.mktemp("scans")
    write_study(make_phantom(seed=301, category="CT-2", matrix=64), folder / "a.nii.gz")
    for name in "bcd":
        (folder / f"{name}.nii.gz").symlink_to(folder / "a.nii.gz")
    return folder


def _interrupt_as_a_terminal_does(line, seconds, environ):
    """Start a command, send SIGINT to its process group after some seconds; return it, its output and its children."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *line],
        cwd=runs.ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started = psutil.Process(process.pid)
    while started.num_threads() == 1:  # the second one waits for Ctrl-C
        time.sleep(0.01)
    time.sleep(seconds)
    children = started.children(recursive=True) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError):  # it was over by then
        os.killpg(process.pid, signal.SIGINT)
    interrupted = time.monotonic()
    _, errors = process.communicate(timeout=60)
    took = time.monotonic() - interrupted
    _, alive = psutil.wait_procs(children, timeout=2)
    for child in alive:
        child.kill()
    return process.returncode, took, errors, alive


@pytest.mark.sampled
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_a_command_in_one_true_line(name, number, trained, data_dir, scans, tmp_path):
    duration, flags, stopped = COMMANDS[name]
    out = tmp_path / "out"
    out.mkdir()
    small = " ".join(runs.FAST)
    filled = flags.format(small=small, out=out, data=data_dir, run=trained, scans=scans).split()
    moment = share.generator(f"moment of {name} {number}").uniform(0, duration)
    print(f"after {moment:.2f} s")
    environ = runs.environment() | ({"JAX_ENABLE_COMPILATION_CACHE": "0"} if "compiles" in name else {})
    line = ["-m", f"covidscan.{name.split()[0]}", *filled]
    status, took, errors, alive = _interrupt_as_a_terminal_does(line, moment, environ)
    assert "Traceback" not in errors
    assert "leaked" not in errors
    assert not alive
    assert took < 4  # 3 on a machine that does nothing else
    if status == 0:
        return  # it was over by then
    assert status == 130
    last = re.split(r"[\r\n]+", errors.strip())[-1]
    if not re.fullmatch(r"stopped at step \d+ of \d+ and saved; the same command resumes there", last):
        assert last == stopped
        assert not list(out.rglob("incomplete.*"))
        assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize(("name", "status", "printed"), [("-m", 130, "stopped before it began\n"), ("x.py", 0, "")])
def test_ctrl_c_before_a_command_has_its_handler_is_one_line_and_other_programs_keep_theirs(name, status, printed):
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv[0] = {name!r}\n"
        "try:\n"
        "    import covidscan\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, printed)
