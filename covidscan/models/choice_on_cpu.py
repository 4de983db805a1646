"""Which form of a convolution CPUs are given: it goes by the sizes, by where the forms crossed on two cores."""

import math

import jax
import jax.numpy as jnp

from covidscan.models.convolution import convolve_along_slices, convolve_by_patches, convolve_by_slices
from covidscan.models.pooled_convolution import convolve_and_pool
from covidscan.models.windows import Window, max_pool
from covidscan.models.winograd import TILE, convolve_by_points

MAX_PATCH = 64
# With fewer channels or tiles, to bring tiles and kernels to points costs more than it saves.
MIN_CHANNELS_BY_POINTS, MIN_TILES_BY_POINTS = 32, 512


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
        return convolve_and_pool(x, kernel, padding, pool) if pool else convolve_by_patches(x, kernel, padding)
    tiles = math.prod(x.shape[:4]) // TILE**2
    suited = (height, width) == (3, 3) and x.dtype == jnp.float32
    if suited and taps * channels >= MIN_CHANNELS_BY_POINTS and tiles >= MIN_TILES_BY_POINTS:
        form = convolve_by_points
    elif height == width == 1 and taps > 1:
        form = convolve_along_slices
    else:
        form = convolve_by_slices
    y: jax.Array = form(x, kernel, padding)
    return max_pool(y, pool) if pool else y
