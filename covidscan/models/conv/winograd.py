"""Winograd convolution F(4x4, 3x3) of Lavin & Gray (CVPR 2016, arXiv:1509.09308), for CPUs.

Each 6x6 tile of a slice's voxels yields 4x4 outputs: input tiles and kernels are transformed to the 6x6 Winograd
domain, where the convolution is a matrix product at each of the 36 points, (tile, slice tap x channel) by
(slice tap x channel, feature). That takes a quarter of the multiplications, and CPUs are best at matrix products. Some
slices (a slab) are transformed at a time, so that they stay in the caches. The barriers keep XLA from computing one
stage again for each of the values that the next takes from it.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.conv import thresholds
from covidscan.models.conv.forms import same_margins

TILE = 4  # outputs of a tile, along rows and along columns
POINTS = TILE + 2
# The matrices of the paper.
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)  # B^T: (point, voxel)
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)  # G: (point, tap)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)  # A^T: (output, point)
OUTPUT_TRANSPOSE = tuple(zip(*OUTPUT_TRANSFORM, strict=True))
# Of a plane: (column point x row point, row tap x column tap).
PLANE_KERNEL_TRANSFORM = (
    np.einsum("pr,qc->qprc", KERNEL_TRANSFORM, KERNEL_TRANSFORM).reshape(POINTS**2, -1).astype(np.float32)
)

Sizes = tuple[int, ...]  # (slice, row, column)


def _transformed(matrix: Sequence[Sequence[float]], values: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiply a constant matrix by a vector of arrays, leaving out products with zero."""
    return [
        functools.reduce(jnp.add, (factor * value for factor, value in zip(row, values, strict=True) if factor))
        for row in matrix
    ]


def _tile_voxels(x: jax.Array, axis: int) -> list[jax.Array]:
    """Return the first, second … sixth voxel of all tiles along an axis; tiles overlap by two."""
    last = x.shape[axis] - POINTS
    return [lax.slice_in_dim(x, first, first + last + 1, TILE, axis) for first in range(POINTS)]


def _transform_input(x: jax.Array, taps: int) -> jax.Array:
    """Transform (batch, slice, row, column, channel) to (point, tile, slice tap x channel)."""
    slices = x.shape[1] - taps + 1
    rows = lax.optimization_barrier(jnp.stack(_transformed(INPUT_TRANSFORM, _tile_voxels(x, 2))))
    columns = _tile_voxels(rows, 4)
    by_tap = [_transformed(INPUT_TRANSFORM, [x[:, :, tap : tap + slices] for x in columns]) for tap in range(taps)]
    points = jnp.stack([jnp.stack(point, axis=-2) for point in zip(*by_tap, strict=True)])
    return lax.optimization_barrier(points).reshape(POINTS**2, -1, taps * x.shape[-1])


def _transform_output(points: jax.Array) -> jax.Array:
    """Transform (column point, row point, slice, tile row, tile column, feature) to (slice, row, column, feature)."""
    _, _, slices, tile_rows, tile_columns, features = points.shape
    columns = lax.optimization_barrier(jnp.stack(_transformed(OUTPUT_TRANSFORM, list(points)), axis=4))
    rows = jnp.stack(_transformed(OUTPUT_TRANSFORM, list(columns)), axis=2)
    return rows.reshape(slices, tile_rows * TILE, tile_columns * TILE, features)


def _transpose_output(y: jax.Array) -> jax.Array:
    """Apply the transpose of `_transform_output` to (slice, row, column, feature): (point, feature, tile)."""
    slices, height, width, features = y.shape
    tile_rows = y.reshape(slices, height // TILE, TILE, width, features)
    rows = jnp.stack(_transformed(OUTPUT_TRANSPOSE, [tile_rows[:, :, row] for row in range(TILE)]))
    tiles = lax.optimization_barrier(rows).reshape(*rows.shape[:3], width // TILE, TILE, features)
    points = jnp.stack(_transformed(OUTPUT_TRANSPOSE, [tiles[..., column, :] for column in range(TILE)]))
    points = points.reshape(POINTS**2, -1, features)
    # The barrier decides the layout: each is the faster one for its products.
    if thresholds.THREADS_SHARE_SMALL_PRODUCTS:
        return lax.optimization_barrier(points.swapaxes(1, 2))
    return lax.optimization_barrier(points).swapaxes(1, 2)


def _transform_kernel(kernel: jax.Array) -> jax.Array:
    """Transform (slice tap, row tap, column tap, in, out) to (point, out, slice tap x in)."""
    taps, _, _, channels, features = kernel.shape
    plane = kernel.transpose(1, 2, 4, 0, 3).reshape(len(PLANE_KERNEL_TRANSFORM.T), -1)
    return lax.optimization_barrier(PLANE_KERNEL_TRANSFORM @ plane).reshape(-1, features, taps * channels)


def _transpose_kernel(points: jax.Array, taps: int) -> jax.Array:
    """Apply the transpose of `_transform_kernel`."""
    plane = PLANE_KERNEL_TRANSFORM.T @ points.reshape(len(points), -1)
    return plane.reshape(3, 3, points.shape[1], taps, -1).transpose(3, 0, 1, 4, 2)


def _products(x: jax.Array, y: jax.Array, over: int) -> jax.Array:
    """Multiply matrices at each point, summing over the last axis of `x` and the axis `over` of `y`."""
    return lax.dot_general(x, y, (((2,), (over,)), ((0,), (0,))))


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _padded(x: jax.Array, before: Sizes, after: Sizes) -> jax.Array:
    """Pad slices, rows and columns with zeros, once, not again in each computation that reads them."""
    widths = ((0, 0), *zip(before, after, strict=True), (0, 0))
    return lax.optimization_barrier(jnp.pad(x, widths)) if any(map(any, widths)) else x


class _Slabs(NamedTuple):
    """Slabs of outputs (batch, slice, row, column, …): some slices of some examples each.

    Attributes:
      groups: of examples, one after the other.
      examples: in a slab.
      count: of slabs of an example, one after the other.
      slices: in a slab; the last slab of an example may be padded.
    """

    groups: int
    examples: int
    count: int
    slices: int

    @classmethod
    def cut(cls, batch: int, sizes: Sizes, inputs: int) -> "_Slabs":
        """Cut outputs of `sizes`, each with `inputs` slice taps x channels."""
        slices, rows, columns = sizes
        slice_bytes = POINTS**2 * _tiles(rows) * _tiles(columns) * inputs * np.dtype(np.float32).itemsize
        fewest = math.ceil(slices / max(1, thresholds.WINOGRAD_SLAB_BYTES // slice_bytes))
        count = next((number for number in range(fewest, 2 * fewest) if slices % number == 0), fewest)
        # A model that is exported for any number of examples has all of them in a slab.
        groups = batch if isinstance(batch, int) else 1
        return cls(groups, batch // groups, count, math.ceil(slices / count))

    def numbers(self) -> jax.Array:
        """Return the numbers of all slabs."""
        return jnp.arange(self.groups * self.count)

    def take(self, x: jax.Array, number: jax.Array, taps: int) -> jax.Array:
        """Return the part of `x` that slab `number` reads, with that many slice taps."""
        x = lax.dynamic_slice_in_dim(x, number // self.count * self.examples, self.examples)
        return lax.dynamic_slice_in_dim(x, number % self.count * self.slices, self.slices + taps - 1, axis=1)

    def join(self, y: jax.Array) -> jax.Array:
        """Reshape outputs (slab, example x slice, …) to (batch, slice, …)."""
        y = y.reshape(self.groups, self.count, self.examples, self.slices, *y.shape[2:])
        return y.swapaxes(1, 2).reshape(-1, self.count * self.slices, *y.shape[4:])


def _convolved(x: jax.Array, kernel: jax.Array, before: Sizes, sizes: Sizes) -> jax.Array:
    """Convolve to outputs of `sizes`, with `before` zeros before the first voxel."""
    taps, _, _, channels, features = kernel.shape
    slices, rows, columns = sizes
    slabs = _Slabs.cut(x.shape[0], sizes, taps * channels)
    tiles = POINTS, POINTS, slabs.examples * slabs.slices, _tiles(rows), _tiles(columns), features
    x = _pad_to_slabs(x, before, slabs, taps, sizes)
    kernels = _transform_kernel(kernel)

    def outputs(number: jax.Array) -> jax.Array:
        points = _transform_input(slabs.take(x, number, taps), taps)
        products = lax.optimization_barrier(_products(points, kernels, 2))
        return _transform_output(products.reshape(tiles))[:, :rows, :columns]

    return slabs.join(lax.map(outputs, slabs.numbers()))[:, :slices]


def _gradient_of_kernel(x: jax.Array, cotangent: jax.Array, before: Sizes, taps: int) -> jax.Array:
    """Return the gradient of a kernel (slice tap, 3, 3, in_channel, out_channel) from that of its outputs."""
    channels, features = x.shape[-1], cotangent.shape[-1]
    _, *sizes, _ = cotangent.shape
    slabs = _Slabs.cut(x.shape[0], tuple(sizes), taps * channels)
    x = _pad_to_slabs(x, before, slabs, taps, tuple(sizes))
    whole = slabs.count * slabs.slices, *(_tiles(size) * TILE for size in sizes[1:])
    cotangent = _padded(cotangent, (0, 0, 0), tuple(np.subtract(whole, sizes)))

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        points = _transform_input(slabs.take(x, number, taps), taps)
        outputs = slabs.take(cotangent, number, 1)
        output_points = _transpose_output(outputs.reshape(-1, *outputs.shape[2:]))
        # In this order: the other takes XLA half as long again.
        return total + lax.optimization_barrier(_products(output_points, points, 1)), None

    zeros = jnp.zeros((POINTS**2, features, taps * channels), x.dtype)
    total, _ = lax.scan(add, zeros, slabs.numbers())
    return _transpose_kernel(total, taps)


def _pad_to_slabs(x: jax.Array, before: Sizes, slabs: _Slabs, taps: int, sizes: Sizes) -> jax.Array:
    """Pad `x` to all that the slabs and tiles of outputs of `sizes` read."""
    needed = slabs.count * slabs.slices + taps - 1, *(_tiles(size) * TILE + 2 for size in sizes[1:])
    return _padded(x, before, tuple(np.subtract(needed, x.shape[1:4]) - before))


def _before(taps: int, padding: str) -> Sizes:
    return tuple(first for first, _ in same_margins((taps, 3, 3))) if padding == "SAME" else (0, 0, 0)


def _forward(x: jax.Array, kernel: jax.Array, padding: str) -> tuple[jax.Array, tuple]:
    sizes = x.shape[1:4]
    if padding == "VALID":
        sizes = tuple(size - taps + 1 for size, taps in zip(sizes, kernel.shape[:3], strict=True))
    return _convolved(x, kernel, _before(kernel.shape[0], padding), sizes), (x, kernel)


def _backward(padding: str, saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    before = _before(kernel.shape[0], padding)
    # The gradient of a convolution is the convolution of the gradient with the flipped kernel.
    flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    before_outputs = tuple(taps - 1 - zeros for taps, zeros in zip(kernel.shape[:3], before, strict=True))
    x_gradient = _convolved(cotangent, flipped, before_outputs, x.shape[1:4])
    return x_gradient, _gradient_of_kernel(x, cotangent, before, kernel.shape[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_winograd(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve with kernels of 3x3 in plane; equal to a direct convolution but for float32's rounding, about 1e-5.

    Args:
      x: (batch, slice, row, column, in_channel), float32.
      kernel: (slice tap, 3, 3, in_channel, out_channel), float32.
      padding: "SAME" or "VALID".

    Returns:
      (batch, slice, row, column, out_channel), float32.
    """
    return _forward(x, kernel, padding)[0]


convolve_winograd.defvjp(_forward, _backward)
