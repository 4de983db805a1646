"""A convolution of few taps and channels and the max pooling of its outputs in one pass, for CPUs.

The outputs of a first layer are eight or more times as large as those of its pooling, and do not fit a CPU's caches: to
write and read them, forward and backward, takes longer than to compute them. Slab by slab they stay in the caches, and
only the position of each window's maximum is kept.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.conv import thresholds
from covidscan.models.conv.forms import convolve_by_patches, same_margins
from covidscan.models.pooling import Window, in_windows


def _maximum(y: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """Return the maximum of each window, (batch, slice, row, column, feature), and the index of its voxel."""
    blocks = in_windows(y, window)
    first, *others = (blocks[:, :, s, :, r, :, c] for s, r, c in np.ndindex(*window))
    best, index = first, jnp.zeros(first.shape, np.min_scalar_type(len(others)))
    for number, voxel in enumerate(others, 1):
        higher = voxel > best
        best, index = jnp.where(higher, voxel, best), jnp.where(higher, np.array(number, index.dtype), index)
    return best, index


def _to_maxima(values: jax.Array, index: jax.Array, window: Window, sizes: tuple[int, ...]) -> jax.Array:
    """Put each window's value where its maximum was, zeros elsewhere: the gradient of `_maximum`.

    Args:
      values: (batch, slice, row, column, feature), one per window.
      index: of the maximum among its window's voxels.
      window: (slice, row, column).
      sizes: slices, rows and columns before pooling.
    """
    voxels = np.arange(math.prod(window), dtype=index.dtype).reshape(1, 1, window[0], 1, window[1], 1, window[2], 1)
    axes = (2, 4, 6)
    spread = jnp.where(jnp.expand_dims(index, axes) == voxels, jnp.expand_dims(values, axes), 0)
    covered = [size // step * step for size, step in zip(sizes, window, strict=True)]
    spread = spread.reshape(len(values), *covered, values.shape[-1])
    return jnp.pad(spread, ((0, 0), *((0, size - part) for size, part in zip(sizes, covered, strict=True)), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pooled(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    return _forward(x, kernel, window)[0]


def _forward(x: jax.Array, kernel: jax.Array, window: Window) -> tuple[jax.Array, tuple]:
    best, index = _maximum(convolve_by_patches(x, kernel, "VALID"), window)
    return best, (x, kernel, index)


def _backward(window: Window, saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel, index = saved
    y, gradients = jax.vjp(lambda x, kernel: convolve_by_patches(x, kernel, "VALID"), x, kernel)
    return gradients(lax.optimization_barrier(_to_maxima(cotangent, index, window, y.shape[1:4])))


_pooled.defvjp(_forward, _backward)


def convolve_and_pool(x: jax.Array, kernel: jax.Array, padding: str, window: Window) -> jax.Array:
    """Convolve, then take the maximum over disjoint windows; the slices of a few windows at a time.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel).
      padding: "SAME" or "VALID".
      window: (slice, row, column); voxels that do not fill one are dropped.

    Returns:
      (batch, slice // window, row // window, column // window, out_channel), of the dtype of `x`.
    """
    taps = kernel.shape[:3]
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins(taps), (0, 0)))
    _, rows, columns = (size - tap + 1 for size, tap in zip(x.shape[1:4], taps, strict=True))
    batch, count, thick = len(x), (x.shape[1] - taps[0] + 1) // window[0], window[0] + taps[0] - 1
    slabs = jnp.stack([x[:, first : first + thick] for first in range(0, count * window[0], window[0])], axis=1)
    slab_bytes = window[0] * rows * columns * kernel.shape[-1] * x.dtype.itemsize
    most = max(1, thresholds.POOLED_SLAB_BYTES // slab_bytes)
    together = max(number for number in range(1, most + 1) if batch * count % number == 0)
    pooled = lax.map(lambda slab: _pooled(slab, kernel, window), slabs.reshape(-1, together, *slabs.shape[2:]))
    return pooled.reshape(batch, count, *pooled.shape[3:])  # without the axis of a slab's only slice
