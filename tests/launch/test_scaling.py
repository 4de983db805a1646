"""The numbers of SCALING.md: bytes from the compiled step, time by the ring's formula."""

import importlib.util

import jax
import pytest

from covidscan.config import Config
from covidscan.training.experiment import create_experiment
from tests.support.runs import ROOT


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "launch" / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_reduces_each_gradient_once(scaling, monkeypatch):
    monkeypatch.setattr(scaling, "GRID", (16, 16, 16))
    experiment = create_experiment(Config(width=8), 2, scaling.GRID, 100)
    hlo = scaling.compiled_step(experiment, per_device=1).as_text()
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_state().params))
    assert gradients <= scaling.collective_bytes(hlo, "all-reduce") <= gradients + 64
    # Two probabilities and a label of each of four examples.
    assert scaling.collective_bytes(hlo, "all-gather") == 4 * (2 + 1) * 4


def test_bytes_are_those_of_the_shapes(scaling):
    hlo = "%a = (f32[2,3]{1,0}, bf16[5]{0}, f32[]) all-reduce(%x, %y, %z)\n%b = s32[8]{0} all-gather(%w)"
    assert scaling.collective_bytes(hlo, "all-reduce") == 24 + 10 + 4
    assert scaling.collective_bytes(hlo, "all-gather") == 32


def test_a_ring_sends_twice_all_but_its_own_share(scaling):
    # 4 devices, 4 MB at 1 GB/s: 6 messages of 1 MB, 1 ms each, and 6 latencies of 10 us.
    assert scaling.ring_seconds(4, 4e6, 1e9, 1e-5) == pytest.approx(6 * (1e-3 + 1e-5))
