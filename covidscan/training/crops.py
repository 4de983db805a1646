"""Training crops about lesions, on the accelerator: pure functions of a key and one volume."""

import jax
import jax.numpy as jnp
from jax import lax

from covidscan.config import parse_crops
from tfds_mosmed.errors import UserError

# Partly aerated: opacities, vessels and the lungs' surface. Crops about these look like those about lesions; about any
# voxel of the lungs, a network learns that a crop with something dense in its middle is positive.
DENSE_LUNG_HU = (-750, -200)


def crop_shape(text: str, volume_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the crops of --lesion_crops.

    Args:
      text: ROWSxCOLUMNSxSLICES, as 64x64x16.
      volume_shape: (slice, row, column) of the records.

    Returns:
      (slice, row, column) of a crop.

    Raises:
      UserError: it is no size, or larger than the records.
    """
    shape = parse_crops(text)
    if any(size > whole for size, whole in zip(shape, volume_shape, strict=True)):
        whole = "x".join(map(str, (*volume_shape[1:], volume_shape[0])))
        raise UserError(f"--lesion_crops={text}: the records are {whole}: give a crop that fits into them")
    return shape


def crop(key: jax.Array, volume: jax.Array, mask: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Crop a volume about a random voxel of its lesions, or of its `DENSE_LUNG_HU` where the mask has none.

    So lesions of a few voxels are in every crop of their study, as in a part of nnU-Net's patches (Isensee et al.,
    Nature Methods 2021).

    Args:
      key: the example's own key.
      volume: (slice, row, column), HU.
      mask: (slice, row, column), above 0 in lesions.
      shape: (slice, row, column) of the crop.

    Returns:
      The crop of the volume, and that of the mask. The voxel is in its middle half along each axis, or nearer to the
      edge where the volume ends.
    """
    voxel_key, offset_key = jax.random.split(key)
    lesion, dense = mask > 0, (volume > DENSE_LUNG_HU[0]) & (volume < DENSE_LUNG_HU[1])
    voxel = _draw_voxel(voxel_key, jnp.where(lesion.any(), lesion, dense))
    size = jnp.array(shape)
    offset = jax.random.randint(offset_key, (3,), -(size // 4), size // 4 + 1)
    start = jnp.clip(voxel - size // 2 + offset, 0, jnp.array(volume.shape) - size)
    return lax.dynamic_slice(volume, start, shape), lax.dynamic_slice(mask, start, shape)


def _draw_voxel(key: jax.Array, chosen: jax.Array) -> jax.Array:
    """Return the indices, (3,), of one of the chosen voxels (slice, row, column), each of which is equally likely."""
    indices, rest = [], chosen.astype(jnp.float32)
    for axis, axis_key in enumerate(jax.random.split(key, 3)):
        counts = jnp.cumsum(rest.sum(tuple(range(1, rest.ndim))))
        indices.append(jnp.argmax(counts > jax.random.uniform(axis_key) * counts[-1]))
        rest = lax.dynamic_index_in_dim(rest, indices[axis], keepdims=False)
    return jnp.stack(indices)
