"""Lowering of one 3-D convolution: the platform's own, or on CPUs the algorithm that is fastest for its shape."""

import os

import jax
from jax import lax

from covidscan.models.conv.cpu import convolve_on_cpu
from covidscan.models.conv.forms import convolve_direct, multiply_patches_on_tpu
from covidscan.models.conv.lanes import convolve_folded, folded, unfolded
from covidscan.models.pooling import Window, max_pool, space_to_channels


def conv3d(x: jax.Array, kernel: jax.Array, padding: str, pool: Window | None = None, fold: int = 1) -> jax.Array:
    """Convolve with stride one, then take the maximum over disjoint windows.

    Set the environment variable COVIDSCAN_DIRECT_CONV=1 to leave out the algorithms for CPUs.

    Args:
      x: (batch, slice, row, column / fold, fold x in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel), of the dtype of `x`.
      padding: "SAME" or "VALID"; "SAME" where columns are folded.
      pool: window (slice, row, column), or None: no pooling, as where columns are folded.
      fold: number of neighbouring columns that are folded into the channels, see `lanes`.

    Returns:
      (batch, slice, row, column / fold, fold x out_channel), of the dtype of `x`.
    """
    if fold > 1:
        on_tpu = lambda x, kernel: convolve_folded(x, kernel, fold)  # noqa: E731
        plain = lambda x, kernel: folded(conv3d(unfolded(x, fold), kernel, padding), fold)  # noqa: E731
        return lax.platform_dependent(x, kernel, tpu=on_tpu, default=plain)

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return max_pool(convolve_direct(x, kernel, padding), pool or (1, 1, 1))

    if os.environ.get("COVIDSCAN_DIRECT_CONV") == "1":
        return direct(x, kernel)
    on_cpu = lambda x, kernel: convolve_on_cpu(x, kernel, padding, pool)  # noqa: E731
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)


def conv_patches(x: jax.Array, kernel: jax.Array, window: Window, fold: int = 1) -> jax.Array:
    """Multiply the voxels of each of the disjoint windows with a kernel: a convolution whose stride is its window.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (1, 1, 1, voxel of the window x in_channel, out_channel), in the order of `space_to_channels`.
      window: (slice, row, column).
      fold: number of neighbouring columns that are folded into the channels of the result, see `lanes`.

    Returns:
      (batch, slice', row', column' / fold, fold x out_channel), of the dtype of `x`.
    """
    stacked = lambda x, kernel: folded(conv3d(space_to_channels(x, window), kernel, "SAME"), fold)  # noqa: E731
    if window[0] > 1 or x.shape[3] % window[2]:
        return stacked(x, kernel)
    on_tpu = lambda x, kernel: multiply_patches_on_tpu(x, kernel, window, fold)  # noqa: E731
    return lax.platform_dependent(x, kernel, tpu=on_tpu, default=stacked)
