"""The original CovidScan's network, with exactly its number of parameters, as a baseline."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.layers import Conv3D, Dropout, LargeDense, expose_features
from covidscan.models.pooling import max_pool


class CovidScanCNN(nn.Module):
    """Conv 64, Conv 128, each with max pooling and batch normalisation, then dense 512, 256.

    At 64x64x32 with one window and two outputs it has 77,426,562 parameters, running statistics included; 77,070,848
    of them are in the first dense layer.

    Attributes:
      outputs: number of logits.
      width: channels of the first convolution.
      dropout: rate after the first dense layer.
      dtype: dtype of the computation.
      axis_name: replica axis over which batch normalisation is synchronised, or None.
    """

    outputs: int
    width: int = 64
    dropout: float = 0.5
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        # Keras's defaults, as in the original: Glorot, valid padding, momentum 0.99, epsilon 1e-3.
        conv = functools.partial(
            Conv3D, padding="VALID", dtype=self.dtype, kernel_init=nn.initializers.glorot_uniform()
        )
        norm = functools.partial(
            nn.BatchNorm, not train, momentum=0.99, epsilon=1e-3, dtype=self.dtype, axis_name=self.axis_name
        )
        x = norm()(nn.relu(conv(self.width, pool=(2, 2, 2))(x)))
        x = conv(2 * self.width)(x)
        # 3 taps, pooled by 2, then 3 taps: the first output sees input voxels 0 to 7.
        x = expose_features(self, x, (2, 2, 2), (3.5, 3.5, 3.5))
        x = norm()(max_pool(nn.relu(x), (2, 2, 2)))
        x = x.reshape(x.shape[0], -1)  # (batch, 6 x 14 x 14 x 128) at 64x64x32
        dense_init = nn.initializers.glorot_uniform()
        x = nn.relu(LargeDense(512, dtype=self.dtype, kernel_init=dense_init)(x))
        x = Dropout(self.dropout, self.axis_name)(x, train)
        x = nn.relu(nn.Dense(256, dtype=self.dtype, kernel_init=dense_init)(x))
        return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=dense_init)(x).astype(jnp.float32)
