"""Arguments of the compilers for TPUs and CPUs."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from covidscan.distributed import compiler_arguments
from covidscan.distributed.compiler_arguments import KEEP_PLANE, SUMS_BY_YNNPACK

FOR_TPU, FOR_CPU = KEEP_PLANE.arguments, SUMS_BY_YNNPACK.arguments


def _set(monkeypatch, tmp_path, versions, given=None, processor="flags : fma avx2 avx512f"):
    def installed(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    (tmp_path / "cpuinfo").write_text(processor)
    monkeypatch.setattr(compiler_arguments, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(importlib.metadata, "version", installed)
    for variable in ("LIBTPU_INIT_ARGS", "XLA_FLAGS"):
        monkeypatch.delenv(variable, raising=False)
        if given is not None:
            monkeypatch.setenv(variable, given)
    for _ in range(2):  # as by a command and by what it calls
        compiler_arguments.set_arguments()
    return os.environ.get("LIBTPU_INIT_ARGS"), os.environ.get("XLA_FLAGS")


@pytest.mark.parametrize(
    ("versions", "given", "expected"),
    [
        ({"libtpu": "0.0.42.1", "jaxlib": "0.10.2"}, None, (FOR_TPU, FOR_CPU)),
        ({"libtpu": "0.0.42", "jaxlib": "0.10.2"}, "--mine=1", (f"{FOR_TPU} --mine=1", f"{FOR_CPU} --mine=1")),
        ({"libtpu": "0.0.420", "jaxlib": "0.10.20"}, "--mine=1", ("--mine=1", "--mine=1")),
        ({}, None, (None, None)),
    ],
    ids=["tried", "own", "later", "absent"],
)
def test_a_compiler_gets_arguments_only_of_a_version_that_knows_them(versions, given, expected, monkeypatch, tmp_path):
    assert _set(monkeypatch, tmp_path, versions, given) == expected


def test_xla_keeps_its_choice_on_processors_that_were_not_measured(monkeypatch, tmp_path):
    found = _set(monkeypatch, tmp_path, {"jaxlib": "0.10.2"}, processor="flags : fma avx2")
    assert found == (None, None)


@pytest.mark.skipif(
    importlib.metadata.version("jaxlib") != SUMS_BY_YNNPACK.tried, reason="this version of jaxlib was not tried"
)
def test_xla_takes_ynnpack_for_sums_and_not_for_convolutions():
    program = """
import jax, jax.numpy as jnp
from jax import lax
x, kernel = jnp.ones((1, 32, 32, 32)), jnp.ones((3, 1, 32, 32))
axes = ("NHWC", "HWIO", "NHWC")
convolve = lambda x, kernel: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)
for function in (convolve, lambda x, kernel: x.sum((1, 2))):
    print("__ynn" in jax.jit(function).lower(x, kernel).compile().as_text())
"""
    environment = os.environ | {"XLA_FLAGS": FOR_CPU}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
