"""Choice of the CPU convolution algorithm by tensor shape."""

import math

import jax
import jax.numpy as jnp

from covidscan.models.conv import thresholds
from covidscan.models.conv.forms import (
    convolve_along_slices,
    convolve_by_patches,
    convolve_by_slices,
    convolve_by_wide_patches,
)
from covidscan.models.conv.pooled import convolve_and_pool
from covidscan.models.conv.winograd import TILE, convolve_winograd
from covidscan.models.pooling import Window, max_pool


def convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: str, pool: Window | None = None) -> jax.Array:
    """Convolve, and pool, by the algorithm that was measured fastest on CPUs; see `conv3d`."""
    taps, height, width, channels, _ = kernel.shape
    if height * width > 1 and taps * height * width * channels <= thresholds.MAX_PATCH:
        if pool and _batch_size(x):
            return convolve_and_pool(x, kernel, padding, pool)
        convolve = convolve_by_patches
    elif _suits_winograd(x, kernel):
        convolve = convolve_winograd
    elif height == width == 1 and taps > 1:
        convolve = convolve_along_slices
    elif _suits_wide_patches(x, kernel):
        convolve = convolve_by_wide_patches
    else:
        convolve = convolve_by_slices
    y: jax.Array = convolve(x, kernel, padding)
    return max_pool(y, pool) if pool else y


def _batch_size(x: jax.Array) -> int | None:
    """Return the number of examples, or None where a model is exported for any number."""
    return x.shape[0] if isinstance(x.shape[0], int) else None


def _suits_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    taps, *plane, channels, _ = kernel.shape
    tiles = (_batch_size(x) or 1) * math.prod(x.shape[1:4]) // TILE**2
    large = taps * channels >= thresholds.MIN_WINOGRAD_CHANNELS and tiles >= thresholds.MIN_WINOGRAD_TILES
    return large and plane == [3, 3] and x.dtype == jnp.float32


def _suits_wide_patches(x: jax.Array, kernel: jax.Array) -> bool:
    batch = _batch_size(x)
    few = batch is not None and batch * math.prod(x.shape[1:4]) <= thresholds.MAX_WIDE_PATCH_VOXELS
    return few and math.prod(kernel.shape[:3]) > 1
