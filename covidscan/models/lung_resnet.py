"""The default network: a residual network for thick slices under thin pixels."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covidscan.models.layers import Conv3D, Dropout, average_pool, space_to_channels

PATCHES = 32
LESION_STAGE = 1
MIN_GROUP_CHANNELS = 8
PEAK_SHARPNESS = 4.0  # between 0, the mean, and infinity, the maximum


def _norm(channels: int, dtype: Any, name: str | None = None) -> nn.GroupNorm:
    """Group normalisation (Wu & He, ECCV 2018): no statistics to share between replicas or to keep."""
    return nn.GroupNorm(num_groups=max(1, channels // MIN_GROUP_CHANNELS), dtype=dtype, name=name)


def _mean_and_peak(x: jax.Array) -> jax.Array:
    """Pool (batch, slice, row, column, channel) to the channels' means and smooth maxima (batch, 2 x channel)."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    peak = jax.nn.logsumexp(PEAK_SHARPNESS * x, axis=1, b=1 / x.shape[1]) / PEAK_SHARPNESS
    return jnp.concatenate([x.mean(axis=1), peak], axis=-1)


class Block(nn.Module):
    """A pre-activation residual block, in-plane first and then through the slices (R(2+1)D, Tran et al., CVPR 2018)."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column, channel) to the same with `features` channels."""
        y = nn.relu(_norm(x.shape[-1], self.dtype)(x))
        skip = x
        if x.shape[-1] != self.features:
            skip = Conv3D(self.features, (1, 1, 1), use_bias=False, dtype=self.dtype)(y)
        y = Conv3D(self.features, (1, 3, 3), use_bias=False, dtype=self.dtype)(y)
        y = nn.relu(_norm(self.features, self.dtype)(y))
        # The last convolution starts at zero, so that each block starts as the identity (Goyal et al., 2017).
        y = Conv3D(self.features, (3, 1, 1), dtype=self.dtype, kernel_init=nn.initializers.zeros)(y)
        return skip + y


class LungResNet(nn.Module):
    """Patches within a slice, 32 by 32 of them, then stages that halve the plane first and the slices later.

    With slices 8 mm apart and lungs 250 to 350 mm wide, a patch is about as wide as a slice is thick, so that from the
    stem on the voxels are nearly cubes. The head joins the mean with a smooth maximum over all places (log-sum-exp
    pooling, Pinheiro & Collobert, CVPR 2015): a lesion of 1 % of the lung does not move the mean. It also sees a map of
    lesions, from the stage at LESION_STAGE, which a loss may teach where masks are known: the map is sown as
    "lesions", logits (batch, slice, row, column).

    Attributes:
      outputs: number of logits.
      width: channels of the first stage; each later stage has twice as many.
      depths: blocks in each stage.
      dropout: rate before the last layer.
      dtype: dtype of the computation.
      axis_name: replica axis, for dropout alone.
    """

    outputs: int
    width: int = 32
    depths: tuple[int, ...] = (1, 1, 1, 1)
    dropout: float = 0.2
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        patch = [max(1, size // PATCHES) for size in x.shape[2:4]]
        x = space_to_channels(x.astype(self.dtype), (1, *patch))
        x = Conv3D(self.width, (1, 1, 1), dtype=self.dtype)(x)  # (b, 32, 32, 32, w) with 32 slices
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                # (b, 32, 16, 16, 2w), (b, 16, 8, 8, 4w), (b, 8, 4, 4, 8w)
                slices = 2 if stage > 1 else 1
                x = average_pool(x, tuple(map(min, (slices, 2, 2), x.shape[1:4])))  # a grid may be small
            for _ in range(depth):
                x = Block(self.width * 2**stage, self.dtype)(x)
            if stage == LESION_STAGE:
                y = nn.relu(_norm(x.shape[-1], self.dtype)(x))
                # Lesions are rare: the map starts near their share.
                bias = nn.initializers.constant(-3.0)
                lesions = nn.Dense(1, dtype=self.dtype, bias_init=bias, name="lesions")(y).astype(jnp.float32)
                self.sow("lesions", "logits", lesions[..., 0])
        x = nn.relu(_norm(x.shape[-1], self.dtype)(x)).astype(jnp.float32)
        x = jnp.concatenate([_mean_and_peak(x), _mean_and_peak(nn.sigmoid(lesions))], axis=-1)
        x = Dropout(self.dropout, self.axis_name)(x, train)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.normal(0.01))(x)
