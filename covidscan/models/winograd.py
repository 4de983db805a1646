"""Convolution in fewer multiplications, F(4x4, 3x3) of Lavin & Gray (CVPR 2016, arXiv:1509.09308), for CPUs.

Each tile of 6x6 voxels of a slice gives 4x4 results: both are brought to 36 points, where the convolution is a product
of matrices, (places, slice taps x channels) by (slice taps x channels, features). That is a quarter of the
multiplications, and matrices are what CPUs are best at. The barriers keep XLA from computing one stage anew for each of
the values that the next takes from it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4  # results of a tile, along rows and along columns
POINTS = TILE + 2
FROM_VOXELS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)  # (point, voxel)
FROM_TAPS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)  # (point, tap)
TO_RESULTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))  # (result, point)
FROM_RESULTS = tuple(zip(*TO_RESULTS, strict=True))

Sizes = tuple[int, ...]  # (slice, row, column)


def _combined(matrix: Sequence[Sequence[float]], values: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiply a constant matrix by a vector of arrays; what is multiplied by zero is left out."""
    return [
        functools.reduce(jnp.add, (factor * value for factor, value in zip(row, values, strict=True) if factor))
        for row in matrix
    ]


def _of_tiles(x: jax.Array, axis: int) -> list[jax.Array]:
    """Take the first, second … sixth voxel of all tiles along an axis; tiles overlap by two."""
    last = x.shape[axis] - POINTS
    return [lax.slice_in_dim(x, first, first + last + 1, TILE, axis) for first in range(POINTS)]


def _voxels_to_points(x: jax.Array, taps: int) -> jax.Array:
    """Bring (batch, slice, row, column, channel) to (column point, row point, batch, slice, tile row, tile column, …).

    The last two axes are the slice tap and the channel.
    """
    slices = x.shape[1] - taps + 1
    rows = lax.optimization_barrier(jnp.stack(_combined(FROM_VOXELS, _of_tiles(x, 2))))
    columns = _of_tiles(rows, 4)
    by_tap = [_combined(FROM_VOXELS, [x[:, :, tap : tap + slices] for x in columns]) for tap in range(taps)]
    return lax.optimization_barrier(jnp.stack([jnp.stack(point, axis=-2) for point in zip(*by_tap, strict=True)]))


def _points_to_results(points: jax.Array) -> jax.Array:
    """Bring (column point, row point, place, tile row, tile column, feature) to (place, row, column, feature)."""
    _, _, places, tile_rows, tile_columns, features = points.shape
    columns = lax.optimization_barrier(jnp.stack(_combined(TO_RESULTS, list(points)), axis=4))
    rows = jnp.stack(_combined(TO_RESULTS, list(columns)), axis=2)
    return rows.reshape(places, tile_rows * TILE, tile_columns * TILE, features)


def _results_to_points(results: jax.Array) -> jax.Array:
    """Transpose `_points_to_results`."""
    places, height, width, features = results.shape
    tile_rows = results.reshape(places, height // TILE, TILE, width, features)
    rows = jnp.stack(_combined(FROM_RESULTS, [tile_rows[:, :, row] for row in range(TILE)]))
    tiles = lax.optimization_barrier(rows).reshape(*rows.shape[:3], width // TILE, TILE, features)
    return lax.optimization_barrier(
        jnp.stack(_combined(FROM_RESULTS, [tiles[..., column, :] for column in range(TILE)]))
    )


def _products(x: jax.Array, y: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Multiply matrices point by point, summing over an axis of `x` and one of `y`."""
    return lax.dot_general(x, y, (((over[0],), (over[1],)), ((0,), (0,))))


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _padded(x: jax.Array, before: Sizes, after: Sizes) -> jax.Array:
    """Pad slices, rows and columns with zeros; once, not for each of those who read them."""
    widths = ((0, 0), *zip(before, after, strict=True), (0, 0))
    return lax.optimization_barrier(jnp.pad(x, widths)) if any(map(any, widths)) else x


def _convolved(x: jax.Array, kernel: jax.Array, before: Sizes, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """Convolve to results of `sizes`, with so many zeros before the first voxel; give also the voxels' points."""
    taps, _, _, channels, features = kernel.shape
    batch, (slices, rows, columns) = x.shape[0], sizes
    needed = slices + taps - 1, _tiles(rows) * TILE + 2, _tiles(columns) * TILE + 2
    after = tuple(need - size - first for need, size, first in zip(needed, x.shape[1:4], before, strict=True))
    points = _voxels_to_points(_padded(x, before, after), taps).reshape(POINTS**2, -1, taps * channels)
    change = np.asarray(FROM_TAPS, np.float32)
    kernels = jnp.einsum("pr,qc,trcio->qptio", change, change, kernel).reshape(POINTS**2, taps * channels, features)
    products = lax.optimization_barrier(_products(points, kernels, (2, 1)))
    tiles = POINTS, POINTS, batch * slices, _tiles(rows), _tiles(columns), features
    results = _points_to_results(products.reshape(tiles))[:, :rows, :columns]
    return results.reshape(batch, *sizes, features), points


def _before(taps: int, padding: str) -> Sizes:
    return ((taps - 1) // 2, 1, 1) if padding == "SAME" else (0, 0, 0)


def _forward(x: jax.Array, kernel: jax.Array, padding: str) -> tuple[jax.Array, tuple]:
    sizes = x.shape[1:4]
    if padding == "VALID":
        sizes = tuple(size - taps + 1 for size, taps in zip(sizes, kernel.shape[:3], strict=True))
    results, points = _convolved(x, kernel, _before(kernel.shape[0], padding), sizes)
    return results, (points, kernel, x.shape[1:4])


def _backward(padding: str, kept: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    points, kernel, sizes = kept
    taps, _, _, channels, features = kernel.shape
    rows, columns = cotangent.shape[2:4]
    fill = 0, _tiles(rows) * TILE - rows, _tiles(columns) * TILE - columns
    of_results = _padded(cotangent, (0, 0, 0), fill)
    of_products = _results_to_points(of_results.reshape(-1, *of_results.shape[2:])).reshape(POINTS**2, -1, features)
    of_kernels = _products(points, of_products, (1, 1)).reshape(POINTS, POINTS, taps, channels, features)
    change = np.asarray(FROM_TAPS, np.float32)
    of_kernel = jnp.einsum("pr,qc,qptio->trcio", change, change, of_kernels)
    # The gradient of a convolution is the convolution of the gradient with the kernel turned round.
    turned = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    before = tuple(size - 1 - first for size, first in zip((taps, 3, 3), _before(taps, padding), strict=True))
    of_x, _ = _convolved(cotangent, turned, before, sizes)
    return of_x, of_kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_by_points(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve with kernels of 3x3 in plane; equal to a direct convolution but for float32's rounding, about 1e-5.

    Args:
      x: (batch, slice, row, column, in_channel), float32.
      kernel: (slice tap, 3, 3, in_channel, out_channel), float32.
      padding: "SAME" or "VALID".

    Returns:
      (batch, slice, row, column, out_channel), float32.
    """
    return _forward(x, kernel, padding)[0]


convolve_by_points.defvjp(_forward, _backward)
