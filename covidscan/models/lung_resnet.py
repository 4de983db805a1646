"""The default network: a residual network for thick slices under thin pixels."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.layers import Conv3D, Dropout, expose_features
from covidscan.models.pooling import average_pool, space_to_channels

PATCHES = 32
MAP_STAGE = 1
MAPS = 4  # the first is the lesion map, the others are free
MAP_SHARES = (0.001, 0.01, 1.0)  # highest shares of a map's voxels: a spot, a patch, the whole lung
MIN_GROUP_CHANNELS = 8


def _norm(channels: int, dtype: Any, name: str | None = None) -> nn.GroupNorm:
    """Return a group normalisation (Wu & He, ECCV 2018): no statistics to share between replicas or to store."""
    return nn.GroupNorm(num_groups=max(1, channels // MIN_GROUP_CHANNELS), dtype=dtype, name=name)


def _pool_highest(maps: jax.Array) -> jax.Array:
    """Pool each map to the means of its highest voxels.

    Args:
      maps: (batch, slice, row, column, map), log-odds.

    Returns:
      (batch, map x share): for each of MAP_SHARES the log-odds of the mean probability over that share of the voxels,
      scaled to be near 0 where a map is empty. A lesion of 1 % of the lung hardly changes the mean over all voxels, but
      makes up the mean over the highest 1 %.
    """
    batch, voxels = maps.shape[0], math.prod(maps.shape[1:4])
    probability = nn.sigmoid(maps).reshape(batch, voxels, -1).swapaxes(1, 2).reshape(-1, voxels)  # (batch x map, voxel)
    counts = [max(1, round(share * voxels)) for share in MAP_SHARES]
    # XLA on CPUs has a TopK for two axes. With more axes, or if the slices below were merged with top_k's own, it would
    # sort all values, which takes twenty times as long.
    highest = lax.optimization_barrier(lax.top_k(probability, max(count for count in counts if count < voxels))[0])
    means = [(probability if count == voxels else highest[..., :count]).mean(-1) for count in counts]
    odds = jnp.clip(jnp.stack(means, axis=-1), 1e-4, 1 - 1e-4)
    return ((jnp.log(odds) - jnp.log1p(-odds) + 4) / 2).reshape(batch, -1)


def _lesions_vote_for_disease(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Initialise the head's kernel (map x share, output): lesion features vote for the diseased classes.

    The first label is taken for no disease. A random start with the opposite sign takes epochs to unlearn.
    """
    kernel = nn.initializers.lecun_normal()(key, shape, dtype)
    outputs = shape[1]
    sign = jnp.where(jnp.arange(outputs) > 0, 1, -1) if outputs > 1 else 1
    from_lesion_map = jnp.arange(shape[0])[:, None] < len(MAP_SHARES)
    return jnp.where(from_lesion_map, sign * jnp.abs(kernel), kernel)


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
    """A residual network that computes a few maps of the lungs and classifies by their highest voxels.

    Each slice is cut into 32 by 32 patches. With slices 8 mm apart and lungs 250 to 350 mm wide a patch is about as
    wide as a slice is thick, so that after the stem the voxels are nearly cubes. Stages halve the plane first and the
    slices later; the features of the later stages are resized to the second stage's grid and added (a feature pyramid,
    Lin et al., CVPR 2017). From them the network computes maps of log-odds; the means of their highest voxels are the
    only input of the last layer (multiple-instance learning), so that a prediction can be shown on the scan. The first
    map can be trained with lesion masks: it is sown as "lesions", log-odds (batch, slice, row, column).

    Attributes:
      outputs: number of logits.
      width: channels of the first stage; each later stage has twice as many.
      depths: blocks in each stage.
      dropout: rate before the last layer.
      dtype: dtype of the computation.
      axis_name: replica axis, used by dropout only.
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
        pyramid = []
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                # (b, 32, 16, 16, 2w), (b, 16, 8, 8, 4w), (b, 8, 4, 4, 8w)
                slices = 2 if stage > 1 else 1
                x = average_pool(x, tuple(map(min, (slices, 2, 2), x.shape[1:4])))  # a grid may be small
            for _ in range(depth):
                x = Block(self.width * 2**stage, self.dtype)(x)
            if stage == 0:  # everything passes through here, and no later layer is as fine
                x = expose_features(self, x, (1, *patch), (0, *((size - 1) / 2 for size in patch)))
            if stage >= MAP_STAGE:
                y = nn.relu(_norm(x.shape[-1], self.dtype)(x))
                pyramid.append(nn.Dense(2 * self.width, use_bias=False, dtype=self.dtype)(y))
        grid = pyramid[0].shape
        y = sum(level if level.shape == grid else jax.image.resize(level, grid, "linear") for level in pyramid)
        y = nn.relu(_norm(grid[-1], self.dtype)(y))
        # Lesions are rare: the maps start near their frequency.
        maps = nn.Dense(MAPS, dtype=self.dtype, bias_init=nn.initializers.constant(-3.0))(y).astype(jnp.float32)
        self.sow("lesions", "logits", maps[..., 0])
        x = Dropout(self.dropout, self.axis_name)(_pool_highest(maps), train)
        return nn.Dense(self.outputs, kernel_init=_lesions_vote_for_disease)(x)
