"""One trained run, made once."""

import shutil

import pytest

from tests.covidscan import runs


@pytest.fixture(scope="session")
def _trained_once(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    runs.run("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return workdir


@pytest.fixture(scope="module")
def trained(_trained_once, tmp_path_factory):
    """A finished run of 14 steps, which no other module evaluates."""
    return shutil.copytree(_trained_once, tmp_path_factory.mktemp("trained") / "run")
