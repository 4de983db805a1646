"""The wheel, installed in a clean environment and used outside of the repository."""

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from tests.support import runs

PACKAGES = ("covidscan", "tfds_mosmed")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources: a folder build/ of the repository may hold files of the past."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(runs.ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(runs.ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, target], cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def covidscan(wheel, tmp_path_factory):
    """A function that runs the installed command in an empty folder; the packages it needs are those of the tests."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True, timeout=60)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / ".venv")}))
    python = folder / ".venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(pip, check=True, timeout=120)
    (packages / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))

    def run(*arguments):
        return subprocess.run(
            [python.with_name("covidscan"), *arguments],
            cwd=folder,
            env={name: value for name, value in runs.environment().items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_the_wheel_has_every_file_of_the_packages(wheel):
    files = {
        str(path.relative_to(runs.ROOT))
        for name in PACKAGES
        for path in (runs.ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files


def test_extras_are_declared_and_locked_as_declared(wheel):
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra:")}
    assert {"gpu", "tpu", "gcs", "s3", "beam"} <= extras
    lock = (runs.ROOT / "launch" / "lock.sh").read_text()
    for extra in ("gpu", "tpu"):
        (needed,) = (line for line in lines if line.endswith(f'; extra == "{extra}"'))
        requirement = needed.removeprefix("Requires-Dist: ").partition(";")[0]
        assert f"lock {extra} '{requirement}'" in lock


@pytest.mark.alone
def test_the_installed_command_lists_the_commands_at_once(covidscan):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert "covidscan COMMAND" in covidscan("--help").stdout
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) <= 0.3


def test_the_installed_command_writes_commands_as_they_are_typed(covidscan):
    shown = covidscan("train", "--help").stdout
    assert "  covidscan train --flagfile=full.flags --workdir=runs/full" in shown
    assert "python -m" not in shown
    done = covidscan("evaluate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: give --workdir, as in: covidscan evaluate --workdir=runs/full (--help lists the flags)\n"
    )
    preset, error = covidscan("train", "--flagfile=covidscan_sample.flags", "--epochs=0").stderr.splitlines()
    assert preset == "--flagfile=covidscan_sample.flags: the preset of covidscan, as there is no such file here"
    assert error.startswith("error: --epochs=0")


def test_the_installed_command_evaluates_a_run(covidscan, trained, data_dir):
    done = covidscan("evaluate", f"--workdir={trained}", f"--data_dir={data_dir}")
    assert done.returncode == 0, done.stderr
    assert "python -m" not in done.stdout + done.stderr
    (folder,) = (trained / "evaluations").iterdir()
    assert {"report.html", "model_card.md", "checklist.md"} <= set(os.listdir(folder))
