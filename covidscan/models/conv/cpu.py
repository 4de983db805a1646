"""Which form of a convolution CPUs are given: it goes by the sizes, by where the forms crossed on two cores."""

import math

import jax
import jax.numpy as jnp

from covidscan.models.conv.forms import (
    convolve_along_slices,
    convolve_by_patches,
    convolve_by_slices,
    convolve_by_wide_patches,
)
from covidscan.models.conv.pooled import convolve_and_pool
from covidscan.models.conv.winograd import TILE, convolve_by_points
from covidscan.models.pooling import Window, max_pool

MAX_PATCH = 64
MAX_VOXELS_BY_WIDE_PATCHES = 1024  # of a batch; the patches of more leave the caches
# With fewer channels or tiles, to bring tiles and kernels to points costs more than it saves.
MIN_CHANNELS_BY_POINTS, MIN_TILES_BY_POINTS = 32, 256


def convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: str, pool: Window | None = None) -> jax.Array:
    """Convolve in the form that was measured fastest on CPUs.

    Args:
      x: as of `convolve_direct`, as are `kernel` and `padding`.
      kernel: the kernel.
      padding: "SAME" or "VALID".
      pool: windows of which the maximum is taken, or None.

    Returns:
      What `convolve_direct` gives, or the maximum of its windows.
    """
    taps, height, width, channels, _ = kernel.shape
    if height * width > 1 and taps * height * width * channels <= MAX_PATCH:
        if pool and _examples(x):
            return convolve_and_pool(x, kernel, padding, pool)
        form = convolve_by_patches
    elif _suits_points(x, kernel):
        form = convolve_by_points
    elif height == width == 1 and taps > 1:
        form = convolve_along_slices
    elif _suits_wide_patches(x, kernel):
        form = convolve_by_wide_patches
    else:
        form = convolve_by_slices
    y: jax.Array = form(x, kernel, padding)
    return max_pool(y, pool) if pool else y


def _examples(x: jax.Array) -> int | None:
    """Give the number of examples, or None where a model is exported for any number."""
    return x.shape[0] if isinstance(x.shape[0], int) else None


def _suits_points(x: jax.Array, kernel: jax.Array) -> bool:
    taps, *plane, channels, _ = kernel.shape
    tiles = (_examples(x) or 1) * math.prod(x.shape[1:4]) // TILE**2
    large = taps * channels >= MIN_CHANNELS_BY_POINTS and tiles >= MIN_TILES_BY_POINTS
    return large and plane == [3, 3] and x.dtype == jnp.float32


def _suits_wide_patches(x: jax.Array, kernel: jax.Array) -> bool:
    examples = _examples(x)
    few = examples is not None and examples * math.prod(x.shape[1:4]) <= MAX_VOXELS_BY_WIDE_PATCHES
    return few and math.prod(kernel.shape[:3]) > 1
