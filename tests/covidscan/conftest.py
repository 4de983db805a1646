"""One trained run, made once."""

import pytest

from tests.covidscan import runs


@pytest.fixture(scope="session")
def trained(data_dir, tmp_path_factory):
    """A finished run of 14 steps."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    runs.run("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return workdir
