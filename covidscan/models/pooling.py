"""Pooling over disjoint windows of volumes (batch, slice, row, column, channel), and their voxels as channels."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Window = tuple[int, ...]  # (slice, row, column)


def in_windows(x: jax.Array, window: Window) -> jax.Array:
    """View (b, s, r, c, ch) as (b, s', ws, r', wr, c', wc, ch); voxels that do not fill a window are dropped."""
    sizes = [size // step for size, step in zip(x.shape[1:4], window, strict=True)]
    s, r, c = (size * step for size, step in zip(sizes, window, strict=True))
    (ws, wr, wc), (ns, nr, nc) = window, sizes
    return x[:, :s, :r, :c].reshape(x.shape[0], ns, ws, nr, wr, nc, wc, x.shape[-1])


def _folded(x: jax.Array, window: Window, combine: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Combine the voxels of disjoint windows two by two, axis by axis.

    XLA's reductions over windows are slow on CPUs: select-and-scatter, and sums of a few neighbours, which take five
    times as long as these additions.
    """
    blocks = in_windows(x, window)
    for axis, step in zip((2, 3, 4), window, strict=True):  # each pass takes an axis away
        blocks = functools.reduce(
            combine, (lax.index_in_dim(blocks, index, axis, keepdims=False) for index in range(step))
        )
    return blocks


def max_pool(x: jax.Array, window: Window) -> jax.Array:
    """Take the maximum over disjoint windows (slice, row, column).

    By comparisons: the gradient of a maximum over an axis divides by the number of elements equal to it, which is 0
    where a compiler computes `x` twice with different rounding.
    """
    return _folded(x, window, lambda best, other: jnp.where(best >= other, best, other))


def average_pool(x: jax.Array, window: Window) -> jax.Array:
    """Take the mean over disjoint windows (slice, row, column)."""
    return _folded(x, window, jnp.add) / math.prod(window)


def space_to_channels(x: jax.Array, window: Window) -> jax.Array:
    """Stack the voxels of disjoint windows (slice, row, column) as channels, instead of a strided convolution.

    Neighbours along columns stay neighbours: whole runs are copied, twice as fast on CPUs as a transposition.
    """
    blocks = in_windows(x, window)  # (b, s', ws, r', wr, c', wc, ch)
    runs = blocks.reshape(*blocks.shape[:6], -1)
    ws, wr, _ = window
    return jnp.concatenate([runs[:, :, i, :, j] for i in range(ws) for j in range(wr)], axis=-1)
