"""Settings that must stand before JAX is imported: four CPU devices, so that pmap has something to map over.

And the smallest phantom data set, made once.
"""

import os
import shutil
import tempfile

# Compiled programs are shared by the processes of one test run, pytest's own workers among them, and by nothing else.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ["JAX_PLATFORMS"] = "cpu"
# Unoptimised code compiles several times faster; the networks of the tests are small.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["NPROC"] = "16"
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pytest

# A first example compiles: its time says nothing.
hypothesis.settings.register_profile("covidscan", deadline=None)
hypothesis.settings.load_profile("covidscan")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Records of ct_phantom/tiny."""
    from tfds_mosmed import catalog

    folder = tmp_path_factory.mktemp("data")
    catalog.load_builder("ct_phantom/tiny", folder).prepare()
    return folder


@pytest.fixture(scope="session")
def _trained_once(data_dir, tmp_path_factory):
    from tests.support import runs

    workdir = tmp_path_factory.mktemp("trained") / "run"
    runs.run("train", *runs.SMALL, f"--workdir={workdir}", f"--data_dir={data_dir}")
    return workdir


@pytest.fixture(scope="module")
def trained(_trained_once, tmp_path_factory):
    """A finished run of 14 steps, which no other module evaluates."""
    return shutil.copytree(_trained_once, tmp_path_factory.mktemp("trained") / "run")
