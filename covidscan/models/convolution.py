"""Forms of one convolution of stride one; `winograd` and `pooled_convolution` hold two more."""

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax


def same_margins(taps: Iterable[int]) -> list[tuple[int, int]]:
    """Give the zeros before and after each axis with which a convolution keeps its size."""
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

    A kernel along the slices alone takes each slice's rows as one long row instead. Equal to `convolve_direct`; on CPUs
    XLA runs it two to four times faster.
    """
    taps, height, width, channels, features = kernel.shape
    if taps > 1 and height == width == 1:
        y = lax.conv_general_dilated(
            x.reshape(*x.shape[:2], -1, channels),
            kernel[:, :, 0],
            window_strides=(1, 1),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*y.shape[:2], *x.shape[2:4], features)
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins([taps]), (0, 0), (0, 0), (0, 0)))
    batch, depth = x.shape[0], x.shape[1] - taps + 1
    stacked = jnp.concatenate([x[:, tap : tap + depth] for tap in range(taps)], axis=-1)
    planes = stacked.reshape(batch * depth, *x.shape[2:4], taps * channels)
    # (tap, row, column, in, out) -> (row, column, tap x in, out)
    plane_kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, taps * channels, features)
    if height == width == 1:
        return (planes @ plane_kernel[0, 0]).reshape(batch, depth, *x.shape[2:4], features)
    y = lax.conv_general_dilated(
        planes,
        plane_kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(batch, depth, *y.shape[1:])


def convolve_by_patches(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as a product of matrices, of each voxel's patch with the kernel; equal to `convolve_direct`.

    For kernels of few taps and channels: what would be a channel is an axis of its own, in runs that CPUs copy fast.
    """
    *taps, channels, features = kernel.shape
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), *same_margins(taps), (0, 0)))
    slices, rows, columns = (size - tap + 1 for size, tap in zip(x.shape[1:4], taps, strict=True))
    corners = itertools.product(*map(range, taps))
    patches = [
        x[:, s : s + slices, r : r + rows, c : c + columns, channel]
        for s, r, c in corners
        for channel in range(channels)
    ]
    stacked = lax.optimization_barrier(jnp.stack(patches)).reshape(len(patches), -1)
    y = lax.dot_general(stacked, kernel.reshape(-1, features), (((0,), (0,)), ((), ())))
    return y.reshape(x.shape[0], slices, rows, columns, features)
