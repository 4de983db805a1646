"""Neighbouring columns folded into the channels, so that few channels fill the 128 lanes of a TPU's registers.

TPUs hold the last axis in lanes: an array of 32 channels takes the memory of one of 128. With four columns folded into
the channels nothing is padded. Kernels become block matrices, mostly zeros, for matrix units that few channels would
not fill either. A folded array is the same values in the same order: other platforms see it as the plain one.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.pooling import Window, average_pool

LANES = 128


def columns_to_fold(columns: int, channels: int) -> int:
    """Return the largest power of two that divides the columns and with which the channels fit into the lanes.

    It is 1 where the channels fill half of them: two columns would double the arithmetic, which bounds such networks.
    """
    fold = 1
    if 2 * channels >= LANES:
        return fold
    while columns % (2 * fold) == 0 and 2 * fold * channels <= LANES:
        fold *= 2
    return fold


def folded(x: jax.Array, fold: int) -> jax.Array:
    """View (batch, slice, row, column, channel) as (batch, slice, row, column / fold, fold x channel)."""
    return x.reshape(*x.shape[:3], x.shape[3] // fold, fold * x.shape[4])


def unfolded(x: jax.Array, fold: int) -> jax.Array:
    """View (batch, slice, row, column / fold, fold x channel) as (batch, slice, row, column, channel)."""
    return x.reshape(*x.shape[:3], x.shape[3] * fold, x.shape[4] // fold)


def convolve_folded(x: jax.Array, kernel: jax.Array, fold: int) -> jax.Array:
    """Convolve a folded array, with zeros around it, without unfolding it.

    Args:
      x: (batch, slice, row, column / fold, fold x in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel).
      fold: number of columns folded into the channels.

    Returns:
      (batch, slice, row, column / fold, fold x out_channel), of the dtype of `x`.
    """
    slices, rows, columns, channels, features = kernel.shape
    reach = -(-(columns // 2) // fold)  # folded columns on either side
    # An output at column `target` takes from column `source` of the folded column `step` further by one tap or none.
    step, source, target = np.ogrid[-reach : reach + 1, :fold, :fold]
    tap = fold * step + source - target + (columns - 1) // 2
    takes = jnp.asarray(tap[..., None] == np.arange(columns), kernel.dtype)
    blocks = jnp.einsum("srcio,mpqc->srmpiqo", kernel, takes)
    return _convolve(x, blocks.reshape(slices, rows, 2 * reach + 1, fold * channels, fold * features), padding="SAME")


def maps_of_folded(x: jax.Array, kernel: jax.Array, fold: int) -> jax.Array:
    """Multiply the channels of each voxel of a folded array with a kernel of few features, without unfolding it.

    Args:
      x: (batch, slice, row, column / fold, fold x channel).
      kernel: (channel, feature), of the dtype of `x`.
      fold: number of columns folded into the channels.

    Returns:
      (batch, feature, fold, slice, row, column / fold): on TPUs the voxels are in the lanes.
    """
    batch, *grid, lanes = x.shape

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = x.reshape(-1, len(kernel)) @ kernel
        return jnp.moveaxis(y.reshape(batch, *grid, fold, -1), (-1, -2), (1, 2))

    def on_tpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        blocks = jnp.einsum("cf,pq->pcfq", kernel, jnp.eye(fold, dtype=kernel.dtype)).reshape(lanes, -1)
        y = jnp.einsum("bvl,lf->bfv", x.reshape(batch, -1, lanes), blocks)
        return y.reshape(batch, -1, fold, *grid)

    return lax.platform_dependent(x, kernel, tpu=on_tpu, default=plain)


def average_pool_folded(x: jax.Array, window: Window, fold: int) -> tuple[jax.Array, int]:
    """Take the mean over disjoint windows of a folded array; on TPUs by a convolution.

    Args:
      x: (batch, slice, row, column / fold, fold x channel).
      window: (slice, row, column); one or two columns.
      fold: number of columns folded into the channels.

    Returns:
      The means, with fewer columns folded into the channels, and how many.
    """
    fewer = max(1, fold // window[2])

    def plain(x: jax.Array) -> jax.Array:
        return folded(average_pool(unfolded(x, fold), window), fewer)

    def on_tpu(x: jax.Array) -> jax.Array:
        channels = np.eye(x.shape[-1] // fold) / math.prod(window)
        columns = np.arange(fold)[:, None] // window[2] == np.arange(fewer)
        kernel = jnp.asarray(np.tile(np.kron(columns, channels), (*window[:2], 1, 1, 1)), x.dtype)
        slices, rows = (size // step * step for size, step in zip(x.shape[1:3], window[:2], strict=True))
        return _convolve(x[:, :slices, :rows], kernel, padding="VALID", strides=(*window[:2], 1))

    return (lax.platform_dependent(x, tpu=on_tpu, default=plain) if fold >= max(2, window[2]) else plain(x)), fewer


def resize_folded(x: jax.Array, fold: int, grid: Sequence[int], new_fold: int) -> jax.Array:
    """Resize a folded array to a finer grid by linear interpolation, as `jax.image.resize` does.

    Args:
      x: (batch, slice, row, column / fold, fold x channel).
      fold: number of columns folded into the channels.
      grid: (slice, row, column) of the result.
      new_fold: number of columns folded into the channels of the result.
    """

    def plain(x: jax.Array) -> jax.Array:
        x = unfolded(x, fold)
        return folded(jax.image.resize(x, (x.shape[0], *grid, x.shape[-1]), "linear"), new_fold)

    def on_tpu(x: jax.Array) -> jax.Array:
        x = unfolded(x, fold)  # few voxels
        columns = jax.image.resize(jnp.eye(x.shape[3], dtype=x.dtype), (grid[2], x.shape[3]), "linear")
        x = jnp.einsum("dc,bsrck->bsrdk", columns, x, precision=lax.Precision.HIGHEST)
        return _upsample(folded(x, new_fold), [int(factor) for factor in factors])

    factors = [new / old for new, old in zip(grid[:2], x.shape[1:3], strict=True)]
    if new_fold > 1 and all(factor == 1 or factor % 2 == 0 for factor in factors):
        return lax.platform_dependent(x, tpu=on_tpu, default=plain)
    return plain(x)


def _upsample(x: jax.Array, factors: Sequence[int]) -> jax.Array:
    """Interpolate linearly between slices and between rows, which become 1 or an even number of times as many."""
    edges = [(int(factor > 1),) * 2 for factor in factors]
    x = jnp.pad(x, ((0, 0), *edges, (0, 0), (0, 0)), mode="edge")
    weights = [1 - np.abs(np.arange(2 * n) - n + 0.5) / n if n > 1 else np.ones(1) for n in factors]
    kernel = np.einsum("s,r,io->srio", *weights, np.eye(x.shape[-1]))[:, :, None]
    margins = [max(0, n // 2 - 1) for n in (*factors, 1)]
    padding = list(zip(margins, margins, strict=True))
    return _convolve(x, jnp.asarray(kernel, x.dtype), padding, dilation=(*factors, 1))


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: str | Sequence[tuple[int, int]],
    strides: Window = (1, 1, 1),
    dilation: Window = (1, 1, 1),
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dilation, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
