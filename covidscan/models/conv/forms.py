"""Algorithms of one convolution of stride one, equal but for rounding; `winograd` and `pooled` hold two more."""

import functools
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.conv.lanes import LANES
from covidscan.models.pooling import Window


def same_margins(taps: Iterable[int]) -> list[tuple[int, int]]:
    """Return the zeros before and after each axis with which a convolution keeps its size."""
    return [((tap - 1) // 2, tap // 2) for tap in taps]


def convolve_direct(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as the platform's own 3-D convolution.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel).
      padding: "SAME" or "VALID".

    Returns:
      (batch, slice, row, column, out_channel), of the dtype of `x`.
    """
    return lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1, 1), padding=padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def convolve_by_slices(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as one 2-D convolution: slice taps stacked as channels, slices folded into the batch.

    On CPUs XLA runs it two to four times faster than `convolve_direct`.
    """
    taps, height, width, _, features = kernel.shape
    stacked = _stacked_slices(x, taps, padding)
    # (tap, row, column, in, out) -> (row, column, tap x in, out)
    plane_kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, -1, features)
    if height == width == 1:
        return _multiply_voxels(stacked, plane_kernel[0, 0])
    y = lax.conv_general_dilated(
        stacked.reshape(-1, *stacked.shape[2:]),
        plane_kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*stacked.shape[:2], *y.shape[1:])


def _multiply_voxels(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiply the channels of each voxel (batch, slice, row, column, channel) by a matrix (channel, feature).

    As one axis of voxels: with several, XLA transposes the inputs of the matrix's gradient, and on CPUs computes all
    that they are fused with once more in that order, which took a fifth of a training step.
    """
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _stacked_slices(x: jax.Array, taps: int, padding: str) -> jax.Array:
    """Stack the inputs of a kernel's slice taps as channels: (batch, slice, row, column, tap x channel)."""
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins([taps]), (0, 0), (0, 0), (0, 0)))
    depth = x.shape[1] - taps + 1
    return jnp.concatenate([x[:, tap : tap + depth] for tap in range(taps)], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_along_slices(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve with a kernel of slice taps alone, each slice's rows joined to one long row.

    Its gradients are those of `convolve_by_slices`, a matrix product: on CPUs XLA's convolution is faster forward, but
    takes two to three times as long backward.
    """
    batch, slices, rows, columns, channels = x.shape
    y = lax.conv_general_dilated(
        x.reshape(batch, slices, -1, channels),
        kernel[:, :, 0],
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(batch, -1, rows, columns, kernel.shape[-1])


def _gradients_along_slices(padding: str, saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    _, gradients = jax.vjp(lambda x, kernel: convolve_by_slices(x, kernel, padding), *saved)
    return gradients(cotangent)


convolve_along_slices.defvjp(
    lambda x, kernel, padding: (convolve_along_slices(x, kernel, padding), (x, kernel)), _gradients_along_slices
)


def _shifted(x: jax.Array, taps: list[int], padding: str) -> list[jax.Array]:
    """Return the inputs of each tap, (batch, slice, row, column, channel) each."""
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins(taps), (0, 0)))
    slices, rows, columns = (size - tap + 1 for size, tap in zip(x.shape[1:4], taps, strict=True))
    corners = itertools.product(*map(range, taps))
    return [x[:, s : s + slices, r : r + rows, c : c + columns] for s, r, c in corners]


def convolve_by_patches(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as a matrix product of each voxel's patch with the kernel (im2col).

    For kernels of few taps and channels: the channels of the patch are the first axis, so that CPUs copy long runs.
    """
    *taps, channels, features = kernel.shape
    patches = [of_tap[..., channel] for of_tap in _shifted(x, taps, padding) for channel in range(channels)]
    stacked = lax.optimization_barrier(jnp.stack(patches)).reshape(len(patches), -1)
    y = lax.dot_general(stacked, kernel.reshape(-1, features), (((0,), (0,)), ((), ())))
    return y.reshape(*patches[0].shape, features)


def convolve_by_wide_patches(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as `convolve_by_patches` does, for many channels and few voxels: channels are copied in runs.

    XLA's own convolution is slow there, most of all in JAX 0.12: the gradients of 3x3x3 taps from 128 to 256 channels
    on 4x8x8 voxels took 24 ms with it and 12 ms with this.
    """
    *taps, _, features = kernel.shape
    patches = _shifted(x, taps, padding)
    stacked = lax.optimization_barrier(jnp.concatenate(patches, axis=-1))
    return _multiply_voxels(stacked, kernel.reshape(-1, features))


def multiply_patches_on_tpu(x: jax.Array, kernel: jax.Array, window: Window, fold: int) -> jax.Array:
    """Multiply the voxels of disjoint windows of one slice with a kernel, as products of whole rows.

    TPUs hold the last axis in 128 lanes. Stacked as channels, the few voxels of a window would fill less than half of
    them, and moving them there takes several passes over padded arrays. Here up to 128 columns stay in the lanes, as
    channels of a convolution whose stride is the window's rows. Its kernel leads from them to all output voxels under
    them, and is mostly zeros: more FLOP than the windows alone would need, but a fraction of their time in memory
    traffic. Input channels are an axis that the kernel covers: XLA computes HU windows as it reads the volume.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (1, 1, 1, row x column of the window x in_channel, out_channel).
      window: (1, row, column); columns of `x` are a multiple of the window's.
      fold: number of neighbouring columns that are folded into the channels of the result.

    Returns:
      (batch, slice, row', column' / fold, fold x out_channel), of the dtype of `x`.
    """
    _, height, width = window
    batch, slices, rows, columns, channels = x.shape
    features = kernel.shape[-1]
    tokens = columns // width
    cells = next(n for n in range(max(fold, LANES // width) // fold * fold, 0, -fold) if tokens % n == 0)
    steps = cells // fold  # of the columns of the result, from the same lanes of `x`
    taps = kernel.reshape(height, width, channels, features)
    # Products with zeros and ones copy the kernel to all places in the lanes, exactly: each sum is of one value.
    pixel, lane = np.arange(cells * width), np.arange(fold * features)
    to_pixels = jnp.asarray(pixel[:, None] % width == np.arange(width), kernel.dtype)
    to_lanes = jnp.asarray(np.arange(features)[:, None] == lane % features, kernel.dtype)
    copies = jnp.einsum("pw,hwcf,fl->chpl", to_pixels, taps, to_lanes)
    step = np.arange(steps)[::-1, None, None]  # the last tap belongs to the first column
    under = jnp.asarray(pixel[:, None] // width == fold * step + lane // features, kernel.dtype)
    y = lax.conv_general_dilated(
        jnp.moveaxis(x.reshape(batch, slices, rows, -1, cells * width, channels), -1, 1),
        copies[:, None, :, None] * under,
        window_strides=(1, 1, height, 1),
        padding=((0, 0), (0, 0), (0, 0), (steps - 1, steps - 1)),
        lhs_dilation=(1, 1, 1, steps),
        dimension_numbers=("NwsrcC", "wsrcIO", "NwsrcC"),
    )
    return y[:, 0]
