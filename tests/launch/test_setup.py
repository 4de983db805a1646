"""Installation by the launch scripts, on machines where something is missing or broken."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import run_on_terminal, shown_lines

LAUNCH = Path(__file__).parents[2] / "launch"


def _bash(script: str, cwd: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", script], cwd=cwd, env={"PATH": path}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def project(tmp_path):
    """A project with nothing but the scripts and an empty lock."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "locked" / "cpu.txt").write_text("# nothing\n")
    return tmp_path


def _program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_does_not_run_is_skipped(project):
    shims = project / "shims"
    _program(shims, "python3.14", "echo 'command not found' >&2; exit 127")
    _program(shims, "python3.12", f'exec "{sys.executable}" "$@"')
    done = _bash("source launch/setup.sh; find_python", project, f"{shims}:/usr/bin:/bin")
    assert done.stdout.strip() == "python3.12"


def test_without_python_the_error_names_what_to_install(project):
    shims = project / "shims"
    for name in ("python3", "python", *(f"python3.{minor}" for minor in range(11, 21))):
        _program(shims, name, "exit 1")
    done = _bash("source launch/setup.sh; install cpu", project, f"{shims}:/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: no Python >= 3.11 with venv on the PATH")


@pytest.mark.parametrize(
    "script", [*LAUNCH.glob("*.sh"), LAUNCH.parent / "tests" / "peers" / "run.sh"], ids=lambda path: path.name
)
def test_scripts_install_locks_that_exist(script):
    for names in re.findall(r"^install (.+)$", script.read_text(), re.MULTILINE):
        for name in names.split():
            assert (LAUNCH / "locked" / f"{name}.txt").is_file(), name


def test_the_same_lock_is_not_installed_again(project):
    shims = project / "shims"
    _program(shims, "python3.20", f'exec "{os.path.realpath(sys.executable)}" "$@"')
    path = f"{shims}:/usr/bin:/bin"
    first = _bash("source launch/setup.sh; install cpu", project, path)
    assert first.returncode == 0, first.stderr
    assert "installing 0 packages of launch/locked/cpu.txt" in first.stderr
    assert (project / ".venv" / "bin" / "python").exists()
    second = _bash("source launch/setup.sh; install cpu", project, path)
    assert second.returncode == 0
    assert second.stderr == ""
    (project / "launch" / "locked" / "cpu.txt").write_text("# other\n")
    assert "installing" in _bash("source launch/setup.sh; install cpu", project, path).stderr
    (project / "launch" / "locked" / "cpu.txt").write_text("absl-py==2.1.0\n")
    without_hash = _bash("source launch/setup.sh; install cpu", project, path)
    assert without_hash.returncode == 1
    assert "Hashes are required" in without_hash.stderr
    assert "2.1.0" not in (project / ".venv" / "installed").read_text()


PIP = """for package in one two three; do
  echo "Collecting $package==1.0 (from -r launch/locked/cpu.txt (line 1))"
  echo "  Using cached $package"
done
echo "Installing collected packages: one, two, three"
"""


def test_an_installation_counts_its_packages(project):
    script = f"source launch/setup.sh; ({PIP}) | show_packages 3"
    in_file = _bash(script, project, os.environ["PATH"])
    assert (in_file.stdout, in_file.stderr) == ("", "unpacking 3 packages, which takes up to a minute\n")
    status, written = run_on_terminal(["bash", "-c", script], cwd=project)
    assert status == 0
    drawn = [part.removeprefix("\x1b[K") for part in written.split("\r")]
    assert "downloading: 2 of 3 packages" in drawn
    assert shown_lines(drawn[-1]) == [""]


def test_an_environment_that_was_interrupted_in_the_making_is_repaired(project):
    shims = project / "shims"
    _program(shims, "python3.20", f'exec "{os.path.realpath(sys.executable)}" "$@"')
    subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", project / ".venv"], check=True)
    done = _bash("source launch/setup.sh; install cpu", project, f"{shims}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert (project / ".venv" / "installed").exists()


def test_tpu_workers_install_the_locked_packages_of_a_clone(project):
    programs = project / "programs"
    _program(programs, "python", 'echo "$@" >&2')
    _program(programs, "git", f'mkdir -p "$4/.venv/bin"; cp -r {LAUNCH} "$4"; cp {programs}/python "$4/.venv/bin"')
    _program(programs, "gcloud", 'for last; do :; done; exec bash -c "${last#--command=}"')
    script = f"NAME=slice ZONE=zone SOURCE=https://host/project bash {LAUNCH}/tpu_vm.sh install"
    done = _bash(script, project, f"{programs}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    (arguments,) = (line.split() for line in done.stderr.splitlines() if "-m pip install " in line)
    assert {"--require-hashes", "--no-deps"} < set(arguments)
    assert arguments[:4] == ["-W", "ignore", "-m", "pip"]  # pip's warning about a package would break its one line
    assert arguments[-2:] == [f"--requirement=launch/locked/{name}.txt" for name in ("cpu", "tpu")]
    assert (project / "covidscan" / ".venv" / "installed").exists()
