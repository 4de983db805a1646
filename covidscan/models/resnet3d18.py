"""ResNet3D-18 (Hara et al., CVPR 2018), as a baseline."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.layers import Conv3D, Dropout, expose_features

POOL_PADDING: Any = [(1, 1)] * 3
STAGES, BLOCKS = 4, 2
INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet3D18(nn.Module):
    """A stem of 7x7x7 taps and four stages of two blocks of 3x3x3 convolutions, each stage twice as wide.

    The stem's stride is one along the slices and two in the plane, and shortcuts are 1x1x1 convolutions, as in the
    authors' code. With three windows and 400 outputs it has its 33,409,104 parameters.

    Attributes:
      outputs: number of logits.
      width: channels of the first stage.
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
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9, dtype=self.dtype, axis_name=self.axis_name)
        dense = functools.partial(Conv3D, use_bias=False, dtype=self.dtype, kernel_init=INIT)
        strided = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=INIT)
        x = nn.relu(norm()(strided(self.width, (7, 7, 7), (1, 2, 2), padding=3)(x)))
        x = expose_features(self, x, (1, 2, 2), (0, 0, 0))
        x = nn.max_pool(x, (3, 3, 3), (2, 2, 2), POOL_PADDING)
        for stage in range(STAGES):
            features = self.width * 2**stage
            for block in range(BLOCKS):
                if stage > 0 and block == 0:  # halves every axis
                    skip = norm()(strided(features, (1, 1, 1), 2, padding=0)(x))
                    y = strided(features, (3, 3, 3), 2, padding=1)(x)
                else:
                    skip, y = x, dense(features)(x)
                y = norm()(dense(features)(nn.relu(norm()(y))))
                x = nn.relu(skip + y)
        x = Dropout(self.dropout, self.axis_name)(x.mean((1, 2, 3)), train)
        return nn.Dense(self.outputs, dtype=self.dtype)(x).astype(jnp.float32)
