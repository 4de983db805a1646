"""The network of the Keras example "3D image classification from CT scans" (Zunair et al., 2020), as a baseline."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.layers import Conv3D, Dropout, expose_features
from covidscan.models.pooling import max_pool


class KerasCNN(nn.Module):
    """Conv 64, 64, 128, 256, each with max pooling and batch normalisation, then their mean, dense 512.

    With one window and one output it has the 1,352,897 parameters of https://keras.io/examples/vision/3D_image_classification,
    running statistics included. The example's valid padding needs 46 slices; here it pads, which changes no parameter.

    Attributes:
      outputs: number of logits.
      width: channels of the first convolution.
      dropout: rate after the dense layer.
      dtype: dtype of the computation.
      axis_name: replica axis over which batch normalisation is synchronised, or None.
    """

    outputs: int
    width: int = 64
    dropout: float = 0.3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        # Keras's defaults, as in the original: Glorot, momentum 0.99, epsilon 1e-3.
        init = nn.initializers.glorot_uniform()
        norm = functools.partial(
            nn.BatchNorm, not train, momentum=0.99, epsilon=1e-3, dtype=self.dtype, axis_name=self.axis_name
        )
        for block, factor in enumerate((1, 1, 2, 4)):
            pool = tuple(min(2, size) for size in x.shape[1:4])  # a grid may be small
            conv = functools.partial(Conv3D, factor * self.width, dtype=self.dtype, kernel_init=init)
            if block == 1:  # 3 taps, pooled by 2, then 3 taps: the first output sees input voxels -3 to 4
                x = max_pool(nn.relu(expose_features(self, conv()(x), (2, 2, 2), (0.5, 0.5, 0.5))), pool)
            else:
                x = nn.relu(conv(pool=pool)(x))
            x = norm()(x)
        x = nn.relu(nn.Dense(8 * self.width, dtype=self.dtype, kernel_init=init)(x.mean((1, 2, 3))))
        x = Dropout(self.dropout, self.axis_name)(x, train)
        return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=init)(x).astype(jnp.float32)
