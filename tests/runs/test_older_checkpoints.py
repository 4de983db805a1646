"""Checkpoints that were written before the running mean of the batch statistics was kept."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covidscan.runs.checkpoints import Checkpoints


class _Before(flax.struct.PyTreeNode):
    step: Any
    params: Any
    batch_stats: Any
    ema_params: Any


class _Now(_Before):
    ema_batch_stats: Any


@pytest.mark.parametrize("stats", [{}, {"mean": np.arange(2.0)}], ids=["without", "with batch statistics"])
@pytest.mark.parametrize("ema", [{}, {"w": np.ones(3)}], ids=["parameters", "averaged parameters"])
def test_they_are_restored_and_begin_with_the_statistics_themselves(tmp_path, stats, ema):
    before = _Before(np.int32(3), {"w": np.arange(3.0)}, stats, ema)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(before, [])
    expected = _Now(*vars(before).values(), stats if ema else {})
    abstract = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, expected))
    with Checkpoints(tmp_path, keep=None) as checkpoints:
        restored, _ = checkpoints.restore(3, abstract)
    assert isinstance(restored, _Now)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
