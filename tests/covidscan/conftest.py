"""The smallest phantom data set and one trained run, made once."""

import pytest

from tests.covidscan import runs


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Records of ct_phantom/tiny."""
    from tfds_mosmed import catalog

    folder = tmp_path_factory.mktemp("data")
    catalog.load_builder("ct_phantom/tiny", folder).prepare()
    return folder


@pytest.fixture(scope="session")
def trained(data_dir, tmp_path_factory):
    """A finished run of 14 steps."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    runs.run("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return workdir
