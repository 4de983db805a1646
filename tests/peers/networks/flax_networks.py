"""The Keras example's and the original CovidScan's network in Flax: those of `covidscan.models`."""

import math

import jax
import jax.numpy as jnp

from covidscan.models.covidscan_cnn import CovidScanCNN
from covidscan.models.keras_cnn import KerasCNN


def count(name: str, shape: tuple[int, int, int]) -> int:
    """Count a network's parameters for volumes of `shape` (slice, row, column), running statistics included."""
    model = {"covidscan_cnn": CovidScanCNN(outputs=2), "keras_example": KerasCNN(outputs=1)}[name]
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape, 1)))
    return sum(math.prod(leaf.shape) for kind in ("params", "batch_stats") for leaf in jax.tree.leaves(variables[kind]))
