"""A convolution of few taps and channels, and the maximum of its results over windows, in one pass, for CPUs.

What a first layer gives is eight times and more as large as what is pooled of it, and does not fit a CPU's caches: to
write and read it, on the way and on the way back, takes longer than to compute it. Slab by slab it stays in the caches,
and of each window the place of its maximum is all that is kept.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.conv.forms import convolve_by_patches, same_margins
from covidscan.models.pooling import Window, in_windows

SLAB_BYTES = 4 * 2**20  # of results, before pooling; measured on two cores


def _maximum(results: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """Give the maximum of each window, (batch, slice, row, column, feature), and which of its voxels that is."""
    blocks = in_windows(results, window)
    first, *others = (blocks[:, :, s, :, r, :, c] for s, r, c in np.ndindex(*window))
    best, place = first, jnp.zeros(first.shape, np.min_scalar_type(len(others)))
    for number, voxel in enumerate(others, 1):
        higher = voxel > best
        best, place = jnp.where(higher, voxel, best), jnp.where(higher, np.array(number, place.dtype), place)
    return best, place


def _to_maxima(values: jax.Array, place: jax.Array, window: Window, sizes: tuple[int, ...]) -> jax.Array:
    """Put each window's value where its maximum was, zeros elsewhere: the gradient of `_maximum`.

    Args:
      values: (batch, slice, row, column, feature), a window each.
      place: of the maximum among its window's voxels.
      window: (slice, row, column).
      sizes: slices, rows and columns before pooling.
    """
    voxels = np.arange(math.prod(window), dtype=place.dtype).reshape(1, 1, window[0], 1, window[1], 1, window[2], 1)
    apart = (2, 4, 6)
    spread = jnp.where(jnp.expand_dims(place, apart) == voxels, jnp.expand_dims(values, apart), 0)
    covered = [size // step * step for size, step in zip(sizes, window, strict=True)]
    spread = spread.reshape(len(values), *covered, values.shape[-1])
    return jnp.pad(spread, ((0, 0), *((0, size - part) for size, part in zip(sizes, covered, strict=True)), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pooled(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    return _forward(x, kernel, window)[0]


def _forward(x: jax.Array, kernel: jax.Array, window: Window) -> tuple[jax.Array, tuple]:
    best, place = _maximum(convolve_by_patches(x, kernel, "VALID"), window)
    return best, (x, kernel, place)


def _backward(window: Window, kept: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel, place = kept
    results, gradients = jax.vjp(lambda x, kernel: convolve_by_patches(x, kernel, "VALID"), x, kernel)
    return gradients(lax.optimization_barrier(_to_maxima(cotangent, place, window, results.shape[1:4])))


_pooled.defvjp(_forward, _backward)


def convolve_and_pool(x: jax.Array, kernel: jax.Array, padding: str, window: Window) -> jax.Array:
    """Convolve, then take the maximum over disjoint windows; a few windows' slices at a time.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel).
      padding: "SAME" or "VALID".
      window: (slice, row, column); what does not fill one is dropped.

    Returns:
      (batch, slice // window, row // window, column // window, out_channel), of the dtype of `x`.
    """
    taps = kernel.shape[:3]
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins(taps), (0, 0)))
    _, rows, columns = (size - tap + 1 for size, tap in zip(x.shape[1:4], taps, strict=True))
    batch, count, thick = len(x), (x.shape[1] - taps[0] + 1) // window[0], window[0] + taps[0] - 1
    slabs = jnp.stack([x[:, first : first + thick] for first in range(0, count * window[0], window[0])], axis=1)
    most = max(1, SLAB_BYTES // (window[0] * rows * columns * kernel.shape[-1] * x.dtype.itemsize))
    together = max(number for number in range(1, most + 1) if batch * count % number == 0)
    pooled = lax.map(lambda slab: _pooled(slab, kernel, window), slabs.reshape(-1, together, *slabs.shape[2:]))
    return pooled.reshape(batch, count, *pooled.shape[3:])  # a slab's only slice goes
