"""Arguments of the compiler for TPUs."""

import importlib.metadata
import os

import pytest

from covidscan.distributed import libtpu


@pytest.mark.parametrize(
    ("version", "given", "expected"),
    [
        ("0.0.42.1", None, "--xla_tpu_run_space_to_batch=false --xla_tpu_run_space_to_batch_on_new_platforms=false"),
        (
            "0.0.42",
            "--xla_tpu_run_space_to_batch=true",
            "--xla_tpu_run_space_to_batch=false --xla_tpu_run_space_to_batch_on_new_platforms=false "
            "--xla_tpu_run_space_to_batch=true",
        ),
        ("0.0.420", "--mine=1", "--mine=1"),
        (None, None, None),
    ],
    ids=["tried", "own", "later", "absent"],
)
def test_the_compiler_gets_arguments_only_of_a_version_that_knows_them(version, given, expected, monkeypatch):
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.delenv(libtpu.VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(libtpu.VARIABLE, given)
    for _ in range(2):  # as by a command and by what it calls
        libtpu.set_arguments()
    assert os.environ.get(libtpu.VARIABLE) == expected
