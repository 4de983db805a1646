"""Anti-aliased separable resizing of volumes, bit-identical for any number of threads."""

import functools
from collections.abc import Sequence

import numpy as np
import scipy.sparse

Span = tuple[float, float]  # first and last edge of an axis


@functools.lru_cache(maxsize=256)
def resize_weights(size: int, new_size: int, span: Span | None = None) -> scipy.sparse.csr_array:
    """Compute the weights of a triangle filter that widens when it shrinks.

    A new pixel i has its centre at (i + 0.5) * size / new_size - 0.5 of the old pixels. The old pixels are weighted by
    a triangle around it whose half width is one pixel of the coarser grid. Weights are normalised over the pixels that
    exist, as in `jax.image.resize(method="linear", antialias=True)` and Pillow's BILINEAR.

    Args:
      size: old pixels along the axis.
      new_size: new pixels.
      span: edges of the new pixels, in old ones; None: the edges of the old ones.

    Returns:
      float32 (new_size, size), sparse; new pixels with their centre outside of the old ones have no weights.
    """
    first, last = span or (0, size)
    scale = (last - first) / new_size
    centres = first + (np.arange(new_size) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(size) - centres[:, None])
    weights = np.maximum(0, 1 - distances / max(scale, 1.0))
    weights[(centres < -0.5) | (centres > size - 0.5)] = 0
    weights /= weights.sum(axis=1, keepdims=True) + (weights.sum(axis=1, keepdims=True) == 0)
    # Sparse products sum in a fixed order; BLAS's order depends on the processor and the number of threads. With a few
    # weights a row they are also four times faster.
    return scipy.sparse.csr_array(weights.astype(np.float32))


def resize(
    volume: np.ndarray,
    shape: tuple[int, ...],
    lowest: float,
    highest: float,
    spans: Sequence[Span] | None = None,
    outside: float = 0.0,
) -> np.ndarray:
    """Clip a volume and resize it.

    Args:
      volume: (slice, row, column), any numeric type, contiguous or not.
      shape: the new (slices, rows, columns).
      lowest: values are clipped to this before they are averaged.
      highest: likewise.
      spans: of each axis, see `resize_weights`.
      outside: value of new voxels with their centre outside of the volume.

    Returns:
      float32, of `shape`.
    """
    slices, rows, columns = volume.shape
    of_slices, of_rows, of_columns = (
        resize_weights(size, new_size, span)
        for size, new_size, span in zip(volume.shape, shape, spans or [None] * 3, strict=True)
    )
    in_plane = np.empty((slices, shape[2], shape[1]), np.float32)  # (slice, column, row)
    values = np.empty((rows, columns), np.float32)
    for plane, resized in zip(volume, in_plane, strict=True):
        values[...] = plane
        np.clip(values, lowest, highest, out=values)
        resized[...] = of_columns @ np.ascontiguousarray((of_rows @ values).T)
    resized = of_slices @ in_plane.reshape(slices, -1)
    resized = resized.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1)
    if spans:
        for axis, weights in enumerate((of_slices, of_rows, of_columns)):
            np.moveaxis(resized, axis, 0)[np.diff(weights.indptr) == 0] = outside
    return resized


def resize_to_spacing(
    volume: np.ndarray, spacing_mm: Sequence[float], new_mm: float, lowest: float, highest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a volume to voxels of about `new_mm`, along no axis to smaller ones than its own.

    For speed voxels are skipped first, as long as at least two remain for each new one.

    Args:
      volume: (slice, row, column).
      spacing_mm: along the same axes.
      new_mm: along all axes.
      lowest: see `resize`.
      highest: see `resize`.

    Returns:
      float32 (slice, row, column), and its exact spacing in mm, (3,).
    """
    slices, rows, columns = (
        max(1, min(size, round(size * step / new_mm))) for size, step in zip(volume.shape, spacing_mm, strict=True)
    )
    shape = (slices, rows, columns)
    steps = (max(1, size // (2 * new)) for size, new in zip(volume.shape, shape, strict=True))
    thinned = volume[tuple(slice(step // 2, None, step) for step in steps)]
    return resize(thinned, shape, lowest, highest), np.array(spacing_mm) * volume.shape / shape
