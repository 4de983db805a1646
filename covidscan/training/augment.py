"""Augmentation of HU volumes on the accelerator: pure functions of a key and one volume.

Every resampling is a product with small matrices, which accelerators and CPUs compute faster than gathers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

AIR_HU = -1024.0
_RESAMPLING = ("flip", "scale", "shift", "rotation", "blur", "crop", "sharpen", "slice_drop")
MOST_WIDTH = 6  # of a kernel's half, pixels: 2 more than the most that --blur takes
GAMMA_TOP_HU = 176.0  # 1200 HU above air: vessels with some contrast medium


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
      crop: greatest share of each axis that a random crop takes away; what is left is enlarged (random resized crop,
        Szegedy et al., CVPR 2015).
      sharpen: greatest overshoot at edges, as sharp reconstruction kernels have; of volumes that are not blurred.
      gamma: greatest logarithm of the exponent of the grey scale between air and soft tissue.
      slice_drop: probability that a slice is replaced by the mean of its neighbours.
    """

    flip: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    blur: float = 0.0
    intensity: float = 0.0
    noise: float = 0.0
    crop: float = 0.0
    sharpen: float = 0.0
    gamma: float = 0.0
    slice_drop: float = 0.0


def _taps(source: jax.Array, size: int, width: jax.Array | float = 1.0) -> jax.Array:
    """Return the weights (…, out, in) of a triangle kernel of half-width `width` about positions `source` (…, out).

    They sum to 1 where the kernel lies inside: a triangle's samples do so by themselves for whole widths alone, and
    otherwise the sum depends on the position between two pixels, which would change HU in stripes.
    """

    def triangle(pixels: jax.Array, positions: jax.Array) -> jax.Array:
        return jnp.maximum(0.0, 1.0 - jnp.abs(positions[..., None] - pixels) / width)

    whole = triangle(jnp.arange(-MOST_WIDTH, MOST_WIDTH + 2), source - jnp.floor(source)).sum(-1, keepdims=True)
    return triangle(jnp.arange(size), source) / whole


def _kernel(source: jax.Array, size: int, blur: jax.Array | float, overshoot: jax.Array | None) -> jax.Array:
    """Return weights like `_taps`, widened by `blur` pixels, less a share of a kernel that is a pixel wider."""
    kernel = _taps(source, size, 1 + blur)
    return kernel if overshoot is None else (1 + overshoot) * kernel - overshoot * _taps(source, size, 2 + blur)


def _centred(size: int) -> jax.Array:
    return jnp.arange(size) - (size - 1) / 2


def in_plane_affine(
    volume: jax.Array,
    matrix: jax.Array,
    shift: jax.Array,
    blur: jax.Array | float = 0.0,
    overshoot: jax.Array | None = None,
) -> jax.Array:
    """Resample each slice: out(p) = in(matrix p + shift) about the centre, in two one-dimensional passes.

    The matrix is split into a change of columns and one of rows (Catmull & Smith, SIGGRAPH 1980), each a batched matrix
    product; up to rotations of some 20 degrees, the first pass loses nothing that the second needs. Voxels from outside
    are 0.

    Args:
      volume: (slice, row, column), float32.
      matrix: (2, 2) over (column, row) in pixels, near the identity or a mirror image of it.
      shift: (2,) over (column, row), pixels.
      blur: widening of the kernel, pixels.
      overshoot: share of a kernel that is a pixel wider, which is taken away from it; None: none.

    Returns:
      The resampled volume, of the same shape.
    """
    _, rows, columns = volume.shape
    (a, b), (c, d) = matrix
    x, y = _centred(columns), _centred(rows)
    # in(column, row) = in(first(second(column, row))), first: (column, row) -> ((a - bc/d) column + b/d row, row),
    # second: (column, row) -> (column, c column + d row).
    column_source = (a - b * c / d) * x[None, :] + b / d * y[:, None] + shift[0] - b / d * shift[1]  # (row, column)
    volume = jnp.einsum("sri,rci->src", volume, _kernel(column_source + (columns - 1) / 2, columns, blur, overshoot))
    row_source = c * x[:, None] + d * y[None, :] + shift[1]  # (column, row)
    return jnp.einsum("sic,cri->src", volume, _kernel(row_source + (rows - 1) / 2, rows, blur, overshoot))


class _Kernels(NamedTuple):
    """Kernels of a resampling: widening and overshoot in the plane, and (slice, slice) the parts of each slice."""

    blur: jax.Array | float = 0.0
    overshoot: jax.Array | None = None
    slices: jax.Array | None = None


def _draw_kernels(key: jax.Array, strength: Augmentation, slices: int) -> _Kernels:
    """Draw between sharp and soft reconstruction, half of the volumes on either side, and slices that are dropped."""
    side = jax.random.uniform(key, minval=-1.0)
    kernels = _Kernels(strength.blur * jnp.maximum(0.0, side))
    if strength.sharpen:
        kernels = kernels._replace(overshoot=strength.sharpen * jnp.maximum(0.0, -side))
    if strength.slice_drop:
        dropped = jax.random.bernoulli(jax.random.fold_in(key, 1), strength.slice_drop, (slices, 1))
        position = jnp.arange(slices)
        neighbours = jnp.stack([jnp.maximum(position - 1, 0), jnp.minimum(position + 1, slices - 1)])
        kernels = kernels._replace(
            slices=jnp.where(dropped, jax.nn.one_hot(neighbours, slices).mean(0), jnp.eye(slices))
        )
    return kernels


def _warp(key: jax.Array, volume: jax.Array, strength: Augmentation, kernels: _Kernels) -> jax.Array:
    """Change the geometry of a volume (slice, row, column) at random, alike on every grid; 0 enters from outside."""
    flip_key, shape_key = jax.random.split(key)
    draw = jax.random.uniform(shape_key, (7,), minval=-1.0)
    angle = jnp.deg2rad(strength.rotation) * draw[0]
    scale = 1 + strength.scale * draw[1:4]  # column, row, slice
    shift = strength.shift * draw[4:7]
    if strength.crop:
        crop = jax.random.uniform(jax.random.fold_in(shape_key, 1), (4,), minval=-1.0)
        taken = strength.crop * jnp.abs(crop[0])
        scale, shift = scale * (1 - taken), shift + taken / 2 * crop[1:]
    mirror = jnp.where(jax.random.bernoulli(flip_key, strength.flip), -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.array([[cos, -sin], [sin, cos]]) * scale[:2]
    matrix = matrix * jnp.stack([mirror, 1.0])[:, None]
    slices, rows, columns = volume.shape
    shift = shift * jnp.array([columns, rows, slices])
    weights = _taps(_centred(slices) * scale[2] + (slices - 1) / 2 + shift[2], slices)
    weights = weights if kernels.slices is None else weights @ kernels.slices
    volume = jnp.einsum("os,src->orc", weights, volume)
    return in_plane_affine(volume, matrix, shift[:2], kernels.blur, kernels.overshoot)


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
    if any(getattr(strength, name) for name in _RESAMPLING):
        # Air is 0 while resampling, so that voxels from outside are air.
        kernels = _draw_kernels(blur_key, strength, len(volume))
        volume = _warp(warp_key, volume - AIR_HU, strength, kernels) + AIR_HU
        mask = None if mask is None else _warp(warp_key, mask, strength, _Kernels())
    if strength.gamma:
        exponent = jnp.exp(strength.gamma * jax.random.uniform(jax.random.fold_in(level_key, 1), minval=-1.0))
        span = GAMMA_TOP_HU - AIR_HU
        # Above the top the scale is shifted, not bent: bone and contrast medium would leave all windows.
        grey = jnp.clip((volume - AIR_HU) / span, 0, 1)
        volume += span * (grey**exponent - grey)
    if strength.intensity:
        change = strength.intensity * jax.random.uniform(intensity_key, (2,), minval=-1.0)
        volume = volume * (1 + change[0] / 1000) + change[1]
    if strength.noise:
        level = strength.noise * jax.random.uniform(level_key)
        volume += level * _noise(noise_key, volume.shape)
    return volume, mask
