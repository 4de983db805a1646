"""Settings of all tests, the smallest phantom data set, and two small runs trained on it.

Among the settings are those that JAX reads when it is imported: four CPU devices, so that pmap has some to map over.
"""

import collections
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

# pytest-xdist's workers inherit what the first process has set. Compiled programs are kept for the next test run, but
# not in CI, where it is to be the same whatever ran before.
if "PYTEST_XDIST_WORKER" not in os.environ:
    if os.environ.get("CI"):
        _compiled = tempfile.TemporaryDirectory()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache / "covidscan" / "tests")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PLATFORMS"] = "cpu"
# Unoptimised code compiles several times faster; the networks of the tests are small.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["NPROC"] = "16"
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("COVIDSCAN_TEST_SEED", str(int.from_bytes(os.urandom(3))))

import hypothesis
import pytest

from tests.support import share

# The first example may compile: its time says nothing.
hypothesis.settings.register_profile("covidscan", deadline=None)
hypothesis.settings.load_profile("covidscan")


# Folders whose tests take long are first, so that no long module is left to one worker at the end.
LONG = ("training", "evaluation", "distributed", "launch", "end_to_end")


# A shell's background commands, such as these tests may be, ignore Ctrl-C, and so would the commands that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Put long modules first, and skip the tests marked "sampled" that are not in the share of this run."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)
    sampled = [item for item in items if item.get_closest_marker("sampled")]
    chosen = share.sample("tests", range(len(sampled)))
    for number, item in enumerate(sampled):
        if number not in chosen:
            item.add_marker(pytest.mark.skip(reason=f"not in the random share: {share.FULL}=1 runs all"))


def pytest_terminal_summary(terminalreporter):
    """Count the skipped tests by reason, and name the seed of the random share."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")
    if not share.is_full():
        terminalreporter.write_line(f"random share of the long tests: {share.SEED}={os.environ[share.SEED]} repeats it")


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that makes a folder once for all of pytest-xdist's workers, and returns it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def make_once(name, make):
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def data_dir(make_once):
    """Records of ct_phantom/tiny."""

    def make(folder):
        from tfds_mosmed import catalog

        catalog.load_builder("ct_phantom/tiny", folder).prepare()

    return make_once("records", make)


@pytest.fixture(scope="session")
def _trained_once(make_once, data_dir):
    return make_once("trained", lambda folder: _train(folder, data_dir))


@pytest.fixture(scope="session")
def _trained_once_with_seed_1(make_once, data_dir):
    return make_once("trained_with_seed_1", lambda folder: _train(folder, data_dir, "--seed=1"))


def _train(workdir, data_dir, *flags):
    from tests.support import runs

    runs.run("train", *runs.SMALL, *flags, f"--workdir={workdir}", f"--data_dir={data_dir}")


@pytest.fixture(scope="module")
def trained(_trained_once, tmp_path_factory):
    """A finished run of 14 steps, which no other module evaluates."""
    return shutil.copytree(_trained_once, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def trained_with_seed_1(_trained_once_with_seed_1, tmp_path_factory):
    """The same run with another seed."""
    return shutil.copytree(_trained_once_with_seed_1, tmp_path_factory.mktemp("trained_with_seed_1") / "run")
