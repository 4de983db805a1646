"""The console command in front of all commands, and the presets that flagfiles name."""

import subprocess
import sys

import pytest

from covidscan.__main__ import COMMANDS
from covidscan.cli import flagfiles
from tests.support import runs


def _covidscan(*arguments, cwd=runs.ROOT, env=None):
    return subprocess.run(
        [sys.executable, "-m", "covidscan", *arguments],
        cwd=cwd,
        env=runs.environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_command_is_in_the_list():
    modules = {path.stem for path in (runs.ROOT / "covidscan").glob("*.py") if "command.run(" in path.read_text()}
    assert modules == set(COMMANDS)


def test_help_lists_every_command_in_a_line():
    done = _covidscan("--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split() for line in done.stdout.splitlines() if line.startswith("  ") and "COMMAND" not in line]
    assert [name for name, *_ in listed] == list(COMMANDS)
    assert max(map(len, done.stdout.splitlines())) <= 90
    alone = _covidscan()
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, "", done.stdout)
    assert _covidscan("--version").stdout == "covidscan 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "'evalute' is no command. Did you mean evaluate?"),
        (["runs/full"], "'runs/full' is no command. (covidscan --help"),
        (["--workdir=a", "train"], "--workdir=a comes before a command: covidscan COMMAND --workdir=a …"),
        (["train", "--wrkdir=a"], "--wrkdir: there is no such flag. Did you mean --workdir?"),
    ],
)
def test_a_mistake_ends_in_one_line(arguments, message):
    done = _covidscan(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_flagfile_that_is_only_a_name_may_be_a_preset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = flagfiles.expand(["--flagfile=covidscan_full.flags", "--seed=7", "--", "--flagfile=absent"])
    assert flags[0] == "--workdir=runs/covidscan_full"
    assert "--model=covidscan_cnn" in flags  # of the preset that it includes
    assert flags[-3:] == ["--seed=7", "--", "--flagfile=absent"]
    assert capsys.readouterr().err == (
        "--flagfile=covidscan_full.flags: the preset of covidscan, as there is no such file here\n"
    )
    (tmp_path / "demo.flags").write_text("# mine\n\n  --seed=3\n-flagfile full.flags\n--flagfile=more.txt\n")
    (tmp_path / "more.txt").write_text("--epochs=2\n")
    assert flagfiles.expand(["--flagfile", "demo.flags"]) == ["--seed=3", "-flagfile full.flags", "--epochs=2"]
    assert capsys.readouterr().err == ""


def test_a_flagfile_that_cannot_be_used_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "self").write_text("--seed=1\n--flagfile=./self\n")
    (tmp_path / "bytes").write_bytes(b"--seed=\xff\n")
    for given, message in {
        "elsewhere/full.flags": "No such file or directory: give a file, or a preset: covidscan_full.flags, ",
        "self": "it includes itself",
        "bytes": "it is not a text file",
        ".": "Is a directory",
        "": "give a file",
    }.items():
        with pytest.raises(flagfiles.flags.Error, match=message):
            flagfiles.expand([f"--flagfile={given}"])


def test_the_preset_of_the_package_is_the_projects():
    assert (flagfiles.PRESETS / "full.flags").read_text() == (runs.ROOT / "full.flags").read_text()
