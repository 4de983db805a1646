"""The Keras example's network in Flax, from this project's layers; `covidscan.models` has the original CovidScan's."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.covidscan_cnn import CovidScanCNN
from covidscan.models.layers import Conv3D, Dropout


class KerasExample(nn.Module):
    """Conv 64, 64, 128, 256, each with max pooling and batch normalisation, then their mean, dense 512.

    Attributes:
      outputs: number of logits.
      dtype: dtype of the computation.
      axis_name: replica axis over which batch normalisation is synchronised, or None.
    """

    outputs: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        init = nn.initializers.glorot_uniform()
        for features in (64, 64, 128, 256):
            x = nn.relu(Conv3D(features, dtype=self.dtype, kernel_init=init, pool=(2, 2, 2))(x))
            x = nn.BatchNorm(not train, momentum=0.99, epsilon=1e-3, dtype=self.dtype, axis_name=self.axis_name)(x)
        x = nn.relu(nn.Dense(512, dtype=self.dtype, kernel_init=init)(x.mean((1, 2, 3))))
        x = Dropout(0.3, self.axis_name)(x, train)
        return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=init)(x).astype(jnp.float32)


def count(name: str, shape: tuple[int, int, int]) -> int:
    """Count a network's parameters for volumes of `shape` (slice, row, column), running statistics included."""
    model = {"covidscan_cnn": CovidScanCNN(outputs=2), "keras_example": KerasExample()}[name]
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape, 1)))
    return sum(math.prod(leaf.shape) for kind in ("params", "batch_stats") for leaf in jax.tree.leaves(variables[kind]))
