"""The Dockerfile, as far as it can be tested without an engine: linted, locked, and complete."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support import runs

LAUNCH = runs.ROOT / "launch"
DOCKERFILE = (LAUNCH / "Dockerfile").read_text()


def _locked(kind: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes) of a lock file."""
    found, name = {}, ""
    for line in (LAUNCH / "locked" / f"{kind}.txt").read_text().splitlines():
        if pinned := re.fullmatch(r"([a-z0-9._-]+)==(\S+) \\", line):
            name = pinned.group(1)
            found[name] = (pinned.group(2), 0)
        else:
            assert re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line), line
            found[name] = (found[name][0], found[name][1] + 1)
    return found


def _requirements() -> list[Requirement]:
    lines = (runs.ROOT / "requirements.txt").read_text().splitlines()
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


def test_every_requirement_is_locked_to_an_allowed_version_with_hashes():
    locked = _locked("cpu")
    assert all(hashes for _, hashes in locked.values())
    for requirement in _requirements():
        version, _ = locked[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement}: locked at {version}: run launch/lock.sh"


@pytest.mark.parametrize(("kind", "package"), [("gpu", "jax-cuda13-plugin"), ("tpu", "libtpu")])
def test_accelerators_only_add_packages(kind, package):
    added = _locked(kind)
    assert package in added
    assert all(hashes for _, hashes in added.values())
    assert not added.keys() & _locked("cpu").keys()


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
