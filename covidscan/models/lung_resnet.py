"""The default network: a residual network for thick slices under thin pixels."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.conv.lanes import average_pool_folded, columns_to_fold, folded, resize_folded, unfolded
from covidscan.models.layers import Conv3D, Dense, Dropout, GroupNorm, PatchConv3D, expose_features
from covidscan.models.pooling import space_to_channels

MAP_STAGE = 1
MAPS = 4  # the first is the lesion map, the others are free
MIN_GROUP_CHANNELS = 8
SEPARABLE = ((1, 3, 3), (3, 1, 1))  # in-plane first and then through the slices (R(2+1)D, Tran et al., CVPR 2018)
DENSE = ((3, 3, 3), (3, 3, 3))  # three to nine times the arithmetic for the same memory traffic


class Size(NamedTuple):
    """Size of the network.

    Attributes:
      width: channels of the first stage; each later stage has twice as many.
      depths: blocks in each stage; blocks in the first have the finest and so the largest arrays.
      kernels: of the two convolutions of a block.
      drop_path: rate of the last block; earlier blocks have less, the first none.
      shares: highest shares of a map's voxels that are averaged: a nodule, a spot, a patch, the whole lung.
      patches: along rows and along columns, or None: tokens of two pixels.
    """

    width: int
    depths: tuple[int, ...]
    kernels: tuple[tuple[int, int, int], ...]
    drop_path: float
    shares: tuple[float, ...] = (0.0001, 0.001, 0.01, 1.0)
    patches: int | None = None


SIZES = {
    "tiny": Size(16, (0, 1, 1, 1), SEPARABLE, 0.0),
    "small": Size(32, (0, 2, 2, 2), SEPARABLE, 0.1),
    "base": Size(64, (0, 2, 4, 2), DENSE, 0.2),
    "large": Size(128, (0, 2, 6, 2), DENSE, 0.3),
    "patches": Size(32, (1, 1, 1, 1), SEPARABLE, 0.0, (0.001, 0.01, 1.0), patches=32),
}


def _norm(channels: int, dtype: Any, fold: int) -> GroupNorm:
    """Return a group normalisation (Wu & He, ECCV 2018): no statistics to share between replicas or to store."""
    return GroupNorm(num_groups=max(1, channels // MIN_GROUP_CHANNELS), dtype=dtype, fold=fold)


def _pool_highest(maps: jax.Array, shares: tuple[float, ...]) -> jax.Array:
    """Pool each map to the means of its highest voxels.

    Args:
      maps: (batch, map, …), log-odds of voxels in any order.
      shares: of the voxels; the last is all.

    Returns:
      (batch, map x share): for each share the log-odds of the mean probability over that share of the voxels,
      scaled to be near 0 where a map is empty. A lesion of 1 % of the lung hardly changes the mean over all voxels, but
      makes up the mean over the highest 1 %.
    """
    batch, voxels = maps.shape[0], math.prod(maps.shape[2:])
    probability = nn.sigmoid(maps).reshape(-1, voxels)  # (batch x map, voxel)
    counts = [max(1, round(share * voxels)) for share in shares]
    # XLA on CPUs has a TopK for two axes. With more axes, or if the slices below were merged with top_k's own, it would
    # sort all values, which takes twenty times as long.
    highest = lax.optimization_barrier(lax.top_k(probability, max(count for count in counts if count < voxels))[0])
    means = [(probability if count == voxels else highest[..., :count]).mean(-1) for count in counts]
    odds = jnp.clip(jnp.stack(means, axis=-1), 1e-4, 1 - 1e-4)
    return ((jnp.log(odds) - jnp.log1p(-odds) + 4) / 2).reshape(batch, -1)


def _lesions_vote(votes: tuple[int, int] | None) -> nn.initializers.Initializer:
    """Return an initialiser of the head's kernel (map x share, output): lesion features vote for disease.

    A random start with the opposite sign takes epochs to unlearn.
    """

    def initialise(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
        kernel = nn.initializers.lecun_normal()(key, shape, dtype)
        if votes is None:
            return kernel
        sign = jnp.where(jnp.arange(shape[1]) > 0, votes[1], votes[0])
        from_lesion_map = jnp.arange(shape[0])[:, None] < shape[0] // MAPS
        return jnp.where(from_lesion_map, sign * jnp.abs(kernel), kernel)

    return initialise


def _expose(module: nn.Module, x: jax.Array, pixels: list[int], fold: int) -> jax.Array:
    """Expose folded features whose voxels are one slice deep and that many pixels along rows and columns."""
    x = expose_features(module, unfolded(x, fold), (1, *pixels), (0, *((each - 1) / 2 for each in pixels)))
    return folded(x, fold)


class Block(nn.Module):
    """A pre-activation residual block of two convolutions.

    Attributes:
      features: number of output channels.
      kernels: sizes of both convolutions, (slice, row, column).
      drop_path: rate at which the block is skipped in training (stochastic depth, Huang et al., ECCV 2016).
      dtype: dtype of the computation.
      axis_name: replica axis.
      fold: number of neighbouring columns that are folded into the channels.
    """

    features: int
    kernels: tuple[tuple[int, int, int], ...]
    drop_path: float
    dtype: Any
    axis_name: str | None
    fold: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map (batch, slice, row, column / fold, fold x channel) to the same with `features` channels."""
        first, second = self.kernels
        channels = x.shape[-1] // self.fold
        y = nn.relu(_norm(channels, self.dtype, self.fold)(x))
        skip = x
        if channels != self.features:
            skip = Conv3D(self.features, (1, 1, 1), use_bias=False, dtype=self.dtype, fold=self.fold)(y)
        y = Conv3D(self.features, first, use_bias=False, dtype=self.dtype, fold=self.fold)(y)
        y = nn.relu(_norm(self.features, self.dtype, self.fold)(y))
        # The last convolution starts at zero, so that each block starts as the identity (Goyal et al., 2017).
        y = Conv3D(self.features, second, dtype=self.dtype, kernel_init=nn.initializers.zeros, fold=self.fold)(y)
        return skip + Dropout(self.drop_path, self.axis_name, whole=True)(y, train)


class LungResNet(nn.Module):
    """A residual network that computes a few maps of the lungs and classifies by their highest voxels.

    The stem makes a token of each 2 x 2 pixels, from 6 x 6 of them. Stages halve the plane first and the slices later,
    which are thick: 8 mm in MosMedData. The features of the later stages are resized to the second stage's grid, of
    4 x 4 pixels, and added (a feature pyramid, Lin et al., CVPR 2017). From them the network computes maps of log-odds;
    the means of their highest voxels are the only input of the last layer (multiple-instance learning), so that a
    prediction can be shown on the scan. The first map can be trained with lesion masks: it is sown as "lesions",
    log-odds (batch, slice, row, column).

    The size "patches" cuts each slice into 32 x 32 patches instead, and makes a token of each by a linear layer.

    All arrays have neighbouring columns folded into the channels, which fills the lanes of TPUs; see `conv.lanes`.

    Attributes:
      outputs: number of logits.
      size: a key of SIZES.
      width: channels of the first stage; 0: the size's.
      dropout: rate before the last layer.
      dtype: dtype of the computation.
      axis_name: replica axis, used by dropout only.
      votes: 1 where lesions mean a higher first logit, and likewise for all others, -1 where they mean a lower one; of
        the initial parameters. None: not known.
    """

    outputs: int
    size: str = "patches"
    width: int = 0
    dropout: float = 0.2
    dtype: Any = jnp.float32
    axis_name: str | None = None
    votes: tuple[int, int] | None = (-1, 1)

    def __post_init__(self) -> None:
        """Take the size's width where none is given."""
        self.width = self.width or SIZES[self.size].width
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Map windows (batch, slice, row, column, channel) in [0, 1] to logits (batch, outputs), float32."""
        size, width, dtype = SIZES[self.size], self.width, self.dtype
        token = [max(1, pixels // size.patches) if size.patches else min(2, pixels) for pixels in x.shape[2:4]]
        tokens = [pixels // each for pixels, each in zip(x.shape[2:4], token, strict=True)]
        fold = columns_to_fold(tokens[1], width)
        if size.patches:  # the layer's name is that of stored parameters
            x = PatchConv3D(width, (1, *token), dtype, fold, name="Conv3D_0")(x)
        else:
            x = folded(space_to_channels(x.astype(dtype), (1, *token)), fold)
            x = Conv3D(width, (1, 3, 3), dtype=dtype, fold=fold)(x)
        pyramid, blocks = [], 0
        for stage, depth in enumerate(size.depths):
            if stage > 0:  # at 128x128x32: (b, 32, 32, 32, 2w), (b, 16, 16, 16, 4w), (b, 8, 8, 8, 8w)
                slices = 2 if stage > 1 else 1
                window = tuple(map(min, (slices, 2, 2), unfolded(x, fold).shape[1:4]))  # a grid may be small
                x, fold = average_pool_folded(x, window, fold)
            for _ in range(depth):
                drop_path = size.drop_path * blocks / max(1, sum(size.depths) - 1)
                x = Block(width * 2**stage, size.kernels, drop_path, dtype, self.axis_name, fold)(x, train)
                blocks += 1
            if stage == 0:
                if not size.patches:
                    x = nn.relu(_norm(width, dtype, fold)(x))
                if depth:  # everything passes through here, and no later layer is as fine
                    x = _expose(self, x, token, fold)
            if stage >= MAP_STAGE:
                y = nn.relu(_norm(x.shape[-1] // fold, dtype, fold)(x))
                pyramid.append((Dense(2 * width, use_bias=False, dtype=dtype, fold=fold)(y), fold))
        y, fold = pyramid[0]
        grid = unfolded(y, fold).shape[1:4]
        y = functools.reduce(jnp.add, (resize_folded(x, before, grid, fold) for x, before in pyramid[1:]), y)
        y = nn.relu(_norm(2 * width, dtype, fold)(y))
        if not size.depths[0]:  # tokens alone know densities and no lesions
            y = _expose(self, y, [pixels * min(2, count) for pixels, count in zip(token, tokens, strict=True)], fold)
        # Lesions are rare: the maps start near their frequency.
        rare = nn.initializers.constant(-3.0)
        maps = Dense(MAPS, dtype=dtype, bias_init=rare, fold=fold, as_maps=True)(y).astype(jnp.float32)
        lesions = jnp.moveaxis(maps[:, 0], 1, -1)  # (batch, slice, row, column / fold, fold)
        self.sow("lesions", "logits", lesions.reshape(*lesions.shape[:3], -1))
        x = Dropout(self.dropout, self.axis_name)(_pool_highest(maps, size.shares), train)
        return nn.Dense(self.outputs, kernel_init=_lesions_vote(self.votes))(x)
