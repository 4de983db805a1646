"""The Dockerfile, as far as it can be tested without an engine: linted, locked, and complete."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

from tests.support import runs

LAUNCH = runs.ROOT / "launch"
DOCKERFILE = (LAUNCH / "Dockerfile").read_text()
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def _locked(kind: str, python: str = "3.13") -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes) that a lock file gives to a Python on Linux."""
    here: Any = {"python_version": python, "python_full_version": f"{python}.2"}
    found, installed, name = {}, True, ""
    for line in (LAUNCH / "locked" / f"{kind}.txt").read_text().splitlines():
        if pinned := re.fullmatch(r"([a-z0-9._-]+)==(\S+)( ; (.+))? \\", line):
            installed = pinned[4] is None or Marker(pinned[4]).evaluate(here)
            name = pinned[1]
            assert not (installed and name in found), f"{name} twice for Python {python}"
            found |= {name: (pinned[2], 0)} if installed else {}
        else:
            assert re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line), line
            found |= {name: (found[name][0], found[name][1] + 1)} if installed else {}
    return found


def _requirements(path: str) -> list[Requirement]:
    lines = (runs.ROOT / path).read_text().splitlines()
    return [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


def _copied() -> list[str]:
    """Paths that the Dockerfile copies from the project."""
    lines = [shlex.split(line) for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line]
    return [source for line in lines for source in line[1:-1]]


def test_hadolint_passes():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), LAUNCH / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_locked_to_an_allowed_version_with_hashes(python):
    locked = _locked("cpu", python)
    for file, found in {
        "requirements.txt": locked,
        "tests/requirements.txt": locked | _locked("tests", python),
    }.items():
        assert all(hashes for _, hashes in found.values())
        for requirement in _requirements(file):
            version, _ = found[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(version), f"{requirement}: locked at {version}: run launch/lock.sh"


@pytest.mark.parametrize(("kind", "package"), [("gpu", "jax-cuda13-plugin"), ("tpu", "libtpu"), ("tests", "pytest")])
@pytest.mark.parametrize("python", PYTHONS)
def test_other_locks_only_add_packages(kind, package, python):
    added = _locked(kind, python)
    assert package in added
    assert all(hashes for _, hashes in added.values())
    assert not added.keys() & _locked("cpu", python).keys()


def test_the_image_lacks_pyarrow_which_is_not_used():
    assert "pyarrow" in _locked("tests")
    assert not any("pyarrow" in _locked(kind) for kind in ("cpu", "gpu", "tpu"))


def test_the_image_starts_from_a_digest():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.13[\w.-]*@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_the_copied_paths_are_not_ignored_and_include_all_that_a_run_needs():
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(_copied())
    assert all((runs.ROOT / source).exists() for source in _copied())
    assert {"covidscan", "tfds_mosmed", "full.flags"} <= set(_copied())


def test_the_image_and_the_manifest_use_the_same_user():
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    *_, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert int(user) == job["spec"]["template"]["spec"]["securityContext"]["runAsUser"] != 0
