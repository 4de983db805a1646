"""Augmentation of HU volumes on the accelerator: pure functions of a key and one volume.

Every resampling is a product with small matrices, which accelerators and CPUs compute faster than gathers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

AIR_HU = -1024.0


class Augmentation(NamedTuple):
    """Strengths of the augmentation; 0 switches it off.

    Attributes:
      flip: probability of a left-right mirror image.
      scale: greatest relative change of size, for each axis on its own.
      shift: greatest shift, as a share of each axis.
      rotation: greatest in-plane rotation, degrees.
      blur: greatest widening of the in-plane interpolation kernel, pixels: between sharp and soft reconstruction.
      intensity: greatest shift of HU; contrast changes by up to a thousandth of it.
      noise: greatest standard deviation of added noise, HU.
    """

    flip: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    blur: float = 0.0
    intensity: float = 0.0
    noise: float = 0.0


def _taps(source: jax.Array, size: int, width: jax.Array | float = 1.0) -> jax.Array:
    """Return the weights (…, out, in) of a triangle kernel of half-width `width` about positions `source` (…, out)."""
    distance = jnp.abs(source[..., None] - jnp.arange(size))
    return jnp.maximum(0.0, 1.0 - distance / width) / width


def _centred(size: int) -> jax.Array:
    return jnp.arange(size) - (size - 1) / 2


def in_plane_affine(volume: jax.Array, matrix: jax.Array, shift: jax.Array, blur: jax.Array | float = 0.0) -> jax.Array:
    """Resample each slice: out(p) = in(matrix p + shift) about the centre, in two one-dimensional passes.

    The matrix is split into a change of columns and one of rows (Catmull & Smith, SIGGRAPH 1980), each a batched matrix
    product; up to rotations of some 20 degrees, the first pass loses nothing that the second needs. Voxels from outside
    are 0.

    Args:
      volume: (slice, row, column), float32.
      matrix: (2, 2) over (column, row) in pixels, near the identity or a mirror image of it.
      shift: (2,) over (column, row), pixels.
      blur: widening of the kernel, pixels.

    Returns:
      The resampled volume, of the same shape.
    """
    _, rows, columns = volume.shape
    (a, b), (c, d) = matrix
    x, y = _centred(columns), _centred(rows)
    # in(column, row) = in(first(second(column, row))), first: (column, row) -> ((a - bc/d) column + b/d row, row),
    # second: (column, row) -> (column, c column + d row).
    column_source = (a - b * c / d) * x[None, :] + b / d * y[:, None] + shift[0] - b / d * shift[1]  # (row, column)
    volume = jnp.einsum("sri,rci->src", volume, _taps(column_source + (columns - 1) / 2, columns, 1 + blur))
    row_source = c * x[:, None] + d * y[None, :] + shift[1]  # (column, row)
    return jnp.einsum("sic,cri->src", volume, _taps(row_source + (rows - 1) / 2, rows, 1 + blur))


def _warp(key: jax.Array, volume: jax.Array, strength: Augmentation, blur: jax.Array | float = 0.0) -> jax.Array:
    """Change the geometry of a volume (slice, row, column) at random, alike on every grid; 0 enters from outside."""
    flip_key, shape_key = jax.random.split(key)
    draw = jax.random.uniform(shape_key, (7,), minval=-1.0)
    angle = jnp.deg2rad(strength.rotation) * draw[0]
    scale = 1 + strength.scale * draw[1:4]  # column, row, slice
    mirror = jnp.where(jax.random.bernoulli(flip_key, strength.flip), -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.array([[cos, -sin], [sin, cos]]) * scale[:2]
    matrix = matrix * jnp.stack([mirror, 1.0])[:, None]
    slices, rows, columns = volume.shape
    shift = strength.shift * draw[4:7] * jnp.array([columns, rows, slices])
    source = _centred(slices) * scale[2] + (slices - 1) / 2 + shift[2]
    volume = jnp.einsum("os,src->orc", _taps(source, slices), volume)
    return in_plane_affine(volume, matrix, shift[:2], blur)


def _noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw nearly normal noise: the sum of a random word's four bytes, centred and scaled to deviation 1.

    The inverse error function that exact normal noise needs takes longer than the rest of the augmentation on a CPU.
    """
    word = jax.random.bits(key, shape)
    total = jnp.stack([(word >> shift) & 0xFF for shift in (0, 8, 16, 24)]).sum(0)
    return (total.astype(jnp.float32) - 4 * 127.5) / (4 * (256**2 - 1) / 12) ** 0.5


def augment(
    key: jax.Array, volume: jax.Array, strength: Augmentation, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Augment one volume, and its mask with the same geometry.

    Args:
      key: the example's own key.
      volume: (slice, row, column), HU.
      strength: of each augmentation.
      mask: (slice, row, column), 0 to 1, on the volume's grid or a coarser one, or None.

    Returns:
      The volume (slice, row, column), HU, float32, with air for voxels from outside; and the mask, float32, or None.
    """
    volume = volume.astype(jnp.float32)
    warp_key, blur_key, intensity_key, level_key, noise_key = jax.random.split(key, 5)
    if strength.scale or strength.shift or strength.rotation or strength.flip or strength.blur:
        # Half of the volumes stay sharp. Air is 0 while resampling, so that voxels from outside are air.
        blur = strength.blur * jnp.maximum(0.0, jax.random.uniform(blur_key, minval=-1.0))
        volume = _warp(warp_key, volume - AIR_HU, strength, blur) + AIR_HU
        mask = None if mask is None else _warp(warp_key, mask, strength)
    if strength.intensity:
        change = strength.intensity * jax.random.uniform(intensity_key, (2,), minval=-1.0)
        volume = volume * (1 + change[0] / 1000) + change[1]
    if strength.noise:
        level = strength.noise * jax.random.uniform(level_key)
        volume += level * _noise(noise_key, volume.shape)
    return volume, mask
