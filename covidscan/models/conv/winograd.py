"""Convolution in fewer multiplications, F(4x4, 3x3) of Lavin & Gray (CVPR 2016, arXiv:1509.09308), for CPUs.

Each tile of 6x6 voxels of a slice gives 4x4 results: both are brought to 36 points, where the convolution is a product
of matrices, (places, slice taps x channels) by (slice taps x channels, features). That is a quarter of the
multiplications, and matrices are what CPUs are best at. It goes by some slices at a time, so that their points stay in
the caches. The barriers keep XLA from computing one stage anew for each of the values that the next takes from it.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.conv.forms import same_margins

TILE = 4  # results of a tile, along rows and along columns
POINTS = TILE + 2
# Before JAX 0.11 XLA divides a batch of products among threads only where each has about ten million multiplications:
# with 64 channels, in slabs of at least 27 MiB.
THREADS_SHARE_SMALL_PRODUCTS = jax.__version_info__ >= (0, 11)
SLAB_BYTES = (12 if THREADS_SHARE_SMALL_PRODUCTS else 30) * 2**20  # of points; measured on two cores
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
# Of a plane, (column point x row point, row tap x column tap).
PLANE_TAPS_TO_POINTS = np.einsum("pr,qc->qprc", FROM_TAPS, FROM_TAPS).reshape(POINTS**2, -1).astype(np.float32)

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
    """Bring (batch, slice, row, column, channel) to (point, place of a tile, slice tap x channel)."""
    slices = x.shape[1] - taps + 1
    rows = lax.optimization_barrier(jnp.stack(_combined(FROM_VOXELS, _of_tiles(x, 2))))
    columns = _of_tiles(rows, 4)
    by_tap = [_combined(FROM_VOXELS, [x[:, :, tap : tap + slices] for x in columns]) for tap in range(taps)]
    points = jnp.stack([jnp.stack(point, axis=-2) for point in zip(*by_tap, strict=True)])
    return lax.optimization_barrier(points).reshape(POINTS**2, -1, taps * x.shape[-1])


def _points_to_results(points: jax.Array) -> jax.Array:
    """Bring (column point, row point, place, tile row, tile column, feature) to (place, row, column, feature)."""
    _, _, places, tile_rows, tile_columns, features = points.shape
    columns = lax.optimization_barrier(jnp.stack(_combined(TO_RESULTS, list(points)), axis=4))
    rows = jnp.stack(_combined(TO_RESULTS, list(columns)), axis=2)
    return rows.reshape(places, tile_rows * TILE, tile_columns * TILE, features)


def _results_to_points(results: jax.Array) -> jax.Array:
    """Transpose `_points_to_results`, to (point, feature, place of a tile)."""
    places, height, width, features = results.shape
    tile_rows = results.reshape(places, height // TILE, TILE, width, features)
    rows = jnp.stack(_combined(FROM_RESULTS, [tile_rows[:, :, row] for row in range(TILE)]))
    tiles = lax.optimization_barrier(rows).reshape(*rows.shape[:3], width // TILE, TILE, features)
    points = jnp.stack(_combined(FROM_RESULTS, [tiles[..., column, :] for column in range(TILE)]))
    points = points.reshape(POINTS**2, -1, features)
    # The barrier decides how they are stored: each way is the faster for its products.
    if THREADS_SHARE_SMALL_PRODUCTS:
        return lax.optimization_barrier(points.swapaxes(1, 2))
    return lax.optimization_barrier(points).swapaxes(1, 2)


def _taps_to_points(kernel: jax.Array) -> jax.Array:
    """Bring (slice tap, row tap, column tap, in, out) to (point, out, slice tap x in)."""
    taps, _, _, channels, features = kernel.shape
    plane = kernel.transpose(1, 2, 4, 0, 3).reshape(len(PLANE_TAPS_TO_POINTS.T), -1)
    return lax.optimization_barrier(PLANE_TAPS_TO_POINTS @ plane).reshape(-1, features, taps * channels)


def _points_to_taps(points: jax.Array, taps: int) -> jax.Array:
    """Transpose `_taps_to_points`."""
    of_plane = PLANE_TAPS_TO_POINTS.T @ points.reshape(len(points), -1)
    return of_plane.reshape(3, 3, points.shape[1], taps, -1).transpose(3, 0, 1, 4, 2)


def _products(x: jax.Array, y: jax.Array, over: int) -> jax.Array:
    """Multiply matrices point by point, summing over the last axis of `x` and an axis of `y`."""
    return lax.dot_general(x, y, (((2,), (over,)), ((0,), (0,))))


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _padded(x: jax.Array, before: Sizes, after: Sizes) -> jax.Array:
    """Pad slices, rows and columns with zeros; once, not for each of those who read them."""
    widths = ((0, 0), *zip(before, after, strict=True), (0, 0))
    return lax.optimization_barrier(jnp.pad(x, widths)) if any(map(any, widths)) else x


class _Slabs(NamedTuple):
    """How results (batch, slice, row, column, …) are cut into slabs of some slices of some examples.

    Attributes:
      groups: of examples, one after the other.
      examples: in a slab.
      count: of slabs of an example, one after the other.
      slices: in a slab; the last one of an example may have less to do.
    """

    groups: int
    examples: int
    count: int
    slices: int

    @classmethod
    def cut(cls, batch: int, sizes: Sizes, inputs: int) -> "_Slabs":
        """Cut `sizes` of results, each of so many taps along slices x channels."""
        slices, rows, columns = sizes
        of_a_slice = POINTS**2 * _tiles(rows) * _tiles(columns) * inputs * np.dtype(np.float32).itemsize
        fewest = math.ceil(slices / max(1, SLAB_BYTES // of_a_slice))
        count = next((number for number in range(fewest, 2 * fewest) if slices % number == 0), fewest)
        # A model that is exported for any number of examples has all of them in a slab.
        groups = batch if isinstance(batch, int) else 1
        return cls(groups, batch // groups, count, math.ceil(slices / count))

    def numbers(self) -> jax.Array:
        """Number all slabs."""
        return jnp.arange(self.groups * self.count)

    def take(self, x: jax.Array, number: jax.Array, taps: int) -> jax.Array:
        """Take what slab `number` sees of `x` with so many taps along slices."""
        x = lax.dynamic_slice_in_dim(x, number // self.count * self.examples, self.examples)
        return lax.dynamic_slice_in_dim(x, number % self.count * self.slices, self.slices + taps - 1, axis=1)

    def join(self, results: jax.Array) -> jax.Array:
        """Bring results (slab, example x slice, …) to (batch, slice, …)."""
        results = results.reshape(self.groups, self.count, self.examples, self.slices, *results.shape[2:])
        return results.swapaxes(1, 2).reshape(-1, self.count * self.slices, *results.shape[4:])


def _convolved(x: jax.Array, kernel: jax.Array, before: Sizes, sizes: Sizes) -> jax.Array:
    """Convolve to results of `sizes`, with so many zeros before the first voxel."""
    taps, _, _, channels, features = kernel.shape
    slices, rows, columns = sizes
    slabs = _Slabs.cut(x.shape[0], sizes, taps * channels)
    tiles = POINTS, POINTS, slabs.examples * slabs.slices, _tiles(rows), _tiles(columns), features
    x = _reaching(x, before, slabs, taps, sizes)
    kernels = _taps_to_points(kernel)

    def results(number: jax.Array) -> jax.Array:
        points = _voxels_to_points(slabs.take(x, number, taps), taps)
        products = lax.optimization_barrier(_products(points, kernels, 2))
        return _points_to_results(products.reshape(tiles))[:, :rows, :columns]

    return slabs.join(lax.map(results, slabs.numbers()))[:, :slices]


def _gradient_of_kernel(x: jax.Array, cotangent: jax.Array, before: Sizes, taps: int) -> jax.Array:
    """Give the gradient of a kernel (slice tap, 3, 3, in_channel, out_channel) by that of its results."""
    channels, features = x.shape[-1], cotangent.shape[-1]
    _, *sizes, _ = cotangent.shape
    slabs = _Slabs.cut(x.shape[0], tuple(sizes), taps * channels)
    x = _reaching(x, before, slabs, taps, tuple(sizes))
    whole = slabs.count * slabs.slices, *(_tiles(size) * TILE for size in sizes[1:])
    cotangent = _padded(cotangent, (0, 0, 0), tuple(np.subtract(whole, sizes)))

    def add(of_kernels: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        points = _voxels_to_points(slabs.take(x, number, taps), taps)
        of_results = slabs.take(cotangent, number, 1)
        of_products = _results_to_points(of_results.reshape(-1, *of_results.shape[2:]))
        # In this order: the other way round XLA takes half as long again.
        return of_kernels + lax.optimization_barrier(_products(of_products, points, 1)), None

    none = jnp.zeros((POINTS**2, features, taps * channels), x.dtype)
    of_kernels, _ = lax.scan(add, none, slabs.numbers())
    return _points_to_taps(of_kernels, taps)


def _reaching(x: jax.Array, before: Sizes, slabs: _Slabs, taps: int, sizes: Sizes) -> jax.Array:
    """Pad `x` to all that slabs and tiles of results of `sizes` see."""
    needed = slabs.count * slabs.slices + taps - 1, *(_tiles(size) * TILE + 2 for size in sizes[1:])
    return _padded(x, before, tuple(np.subtract(needed, x.shape[1:4]) - before))


def _before(taps: int, padding: str) -> Sizes:
    return tuple(first for first, _ in same_margins((taps, 3, 3))) if padding == "SAME" else (0, 0, 0)


def _forward(x: jax.Array, kernel: jax.Array, padding: str) -> tuple[jax.Array, tuple]:
    sizes = x.shape[1:4]
    if padding == "VALID":
        sizes = tuple(size - taps + 1 for size, taps in zip(sizes, kernel.shape[:3], strict=True))
    return _convolved(x, kernel, _before(kernel.shape[0], padding), sizes), (x, kernel)


def _backward(padding: str, kept: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    before = _before(kernel.shape[0], padding)
    # The gradient of a convolution is the convolution of the gradient with the kernel turned round.
    turned = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    before_results = tuple(taps - 1 - first for taps, first in zip(kernel.shape[:3], before, strict=True))
    of_x = _convolved(cotangent, turned, before_results, x.shape[1:4])
    return of_x, _gradient_of_kernel(x, cotangent, before, kernel.shape[0])


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
