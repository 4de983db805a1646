"""DenseNet3D-121 (Huang et al., CVPR 2017, in three dimensions), with MONAI's layers, as a baseline."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.layers import Conv3D, Dropout, expose_features
from covidscan.models.pooling import average_pool

DEPTHS = (6, 12, 24, 16)  # layers of each block
POOL_PADDING: Any = [(1, 1)] * 3
BOTTLENECK = 4  # channels of a layer's first convolution, as multiples of its outputs


class DenseNet3D121(nn.Module):
    """Four blocks of layers, each of which sees the outputs of all layers before it in its block.

    With one window and two outputs it has the 11,244,674 parameters of MONAI's DenseNet121 with `spatial_dims=3`.

    Attributes:
      outputs: number of logits.
      width: channels of the stem; each layer adds half as many.
      dropout: rate before the last layer; the original has none.
      dtype: dtype of the computation.
      axis_name: replica axis over which batch normalisation is synchronised, or None.
    """

    outputs: int
    width: int = 64
    dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        growth = max(1, self.width // 2)
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9, dtype=self.dtype, axis_name=self.axis_name)
        conv = functools.partial(Conv3D, use_bias=False, dtype=self.dtype)
        x = nn.Conv(self.width, (7, 7, 7), 2, padding=3, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(norm()(x))
        x = expose_features(self, x, (2, 2, 2), (0, 0, 0))
        x = nn.max_pool(x, (3, 3, 3), (2, 2, 2), POOL_PADDING)
        for block, depth in enumerate(DEPTHS):
            if block > 0:  # halves channels and every axis
                x = conv(x.shape[-1] // 2, (1, 1, 1))(nn.relu(norm()(x)))
                x = average_pool(x, tuple(min(2, size) for size in x.shape[1:4]))  # a grid may be small
            for _ in range(depth):
                y = conv(BOTTLENECK * growth, (1, 1, 1))(nn.relu(norm()(x)))
                y = conv(growth)(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(norm()(x)).mean((1, 2, 3))
        x = Dropout(self.dropout, self.axis_name)(x, train)
        return nn.Dense(self.outputs, dtype=self.dtype)(x).astype(jnp.float32)
