"""The frame of the commands, and the version of the code that they record."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from covidscan import version
from covidscan.cli import command

MAIN = """
import os, signal, time
from covidscan.cli import command

def main():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands ignore it
command.run(main)
"""


@pytest.mark.parametrize(("name", "words"), [("train", "last checkpoint"), ("build", "records"), ("localise", "again")])
def test_ctrl_c_ends_in_one_true_line(name, words, tmp_path):
    script = tmp_path / f"{name}.py"
    script.write_text(MAIN)
    environment = os.environ | {"PYTHONPATH": str(Path(version.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("stopped")
    assert words in line
    assert ("checkpoint" in line) == (name == "train")


def test_an_error_cannot_control_the_terminal():
    line = command._one_line(ValueError("kernel \x1b[31mB30\x07 \x9b2J\u202e\nof a file"))
    assert line == r"kernel \x1b[31mB30\x07 \x9b2J\u202e of a file"


HOSTILE = "a\x1b]0;title\x07\u202e\x9b2J\nE1129 forged"


def test_printed_and_logged_names_cannot_control_the_terminal(tmp_path):
    script = tmp_path / "evaluate.py"
    script.write_text(
        "import logging as stdlib_logging\n"
        "from absl import logging\n"
        "from covidscan.cli import command\n"
        f"name = {HOSTILE!r}\n"
        "def main():\n"
        "    logging.warning('%s was left out', name)\n"
        "    stdlib_logging.getLogger('tfds_mosmed.scans.find').warning('%s was left out', name)\n"
        "    print(name, 'b\\udce9', flush=True)\n"
        "    raise command.UserError(name)\n"
        "command.run(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(version.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    escaped = r"a\x1b]0;title\x07\u202e\x9b2J"
    assert done.stdout == f"{escaped}\nE1129 forged b\\udce9\n"
    *logged, error = done.stderr.splitlines()
    assert logged == [f"warning: {escaped} E1129 forged was left out"] * 2
    assert error == f"error: {escaped} E1129 forged"


def test_a_device_without_memory_is_one_line_with_a_remedy(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import jax\n"
        "from covidscan.cli import command\n"
        "def main():\n"
        "    jax.numpy.zeros(2**55, jax.numpy.int8).block_until_ready()\n"
        "command.run(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(version.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: RESOURCE_EXHAUSTED: ")
    assert "use a lower --batch_size" in line


def test_an_error_is_one_line_without_a_stdout_too(tmp_path):
    script = tmp_path / "evaluate.py"
    script.write_text(
        "from covidscan.cli import command\n"
        "def main():\n"
        "    raise command.UserError('--workdir: give one')\n"
        "command.run(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(version.__file__).parents[1])}
    line = ["bash", "-c", f"{sys.executable} {script} >&-"]
    done = subprocess.run(line, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: --workdir: give one\n")


def test_the_commit_of_another_project_is_not_ours(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    ours = tmp_path / "covidscan" / "version.py"
    installed = tmp_path / "site-packages" / "covidscan" / "version.py"
    for file in (ours, installed):
        file.parent.mkdir(parents=True)
        file.write_text("")
    git("init")
    (tmp_path / "other.txt").write_text("")
    git("add", "other.txt")
    git("commit", "-m", "theirs")
    for file in (ours, installed):  # not tracked, and not at the top of the work tree
        monkeypatch.setattr(version, "__file__", str(file))
        assert version.code_version() == version.__version__
    git("add", ".")
    git("commit", "-m", "ours")
    assert version.code_version() == version.__version__
    monkeypatch.setattr(version, "__file__", str(ours))
    assert version.code_version().startswith(f"{version.__version__}+")
