"""Losses: targets from labels, cross-entropy of logits, the loss of the lesion map, mixup."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from covidscan.models.heads import UNSCALED, Scaling
from covidscan.models.pooling import average_pool
from covidscan.training.network import lesion_map_shape


def targets(
    task: str,
    label: ArrayLike,
    num_labels: int,
    smoothing: float,
    scaling: Scaling = UNSCALED,
) -> jax.Array:
    """Return smoothed target probabilities (…, output) for labels (…,); of "regression" the scaled labels (…, 1).

    Severity is encoded as label > 0, label > 1, … (Frank & Hall, ECML 2001), so that a miss by two grades costs more.
    """
    if task == "regression":
        return ((jnp.asarray(label, jnp.float32) - scaling.mean) / scaling.scale)[..., None]
    if task == "multilabel":  # labels (…, label), 0 or 1
        return jnp.asarray(label, jnp.float32) * (1 - smoothing) + smoothing / 2
    if task == "severity":
        exceeds = (jnp.asarray(label)[..., None] > jnp.arange(num_labels - 1)).astype(jnp.float32)
        return exceeds * (1 - smoothing) + smoothing / 2
    return optax.smooth_labels(jax.nn.one_hot(jnp.asarray(label), num_labels), smoothing)


def loss(task: str, logits: ArrayLike, target: jax.Array) -> jax.Array:
    """Compute the cross-entropy of logits (…, output) and target probabilities, summed over the outputs: (…,).

    Of "regression" it is the Huber loss, which grows linearly beyond one standard deviation of the labels: a few
    labels far from the others do not decide the training.
    """
    if task == "regression":
        return optax.huber_loss(logits, target).sum(-1)
    if task in ("severity", "multilabel"):
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(-1)
    return optax.softmax_cross_entropy(logits, target)


def lesion_loss(logits: jax.Array, mask: jax.Array, has_mask: jax.Array) -> jax.Array:
    """Compute the cross-entropy of a lesion map and its masks.

    Args:
      logits: (batch, slice, row, column).
      mask: (batch, slice, row, column), the share of each voxel of the map that is lesion.
      has_mask: (batch,), 0 for studies without a mask, else 1.

    Returns:
      (batch,): the mean over voxels, 0 where there is no mask.
    """
    return has_mask * optax.sigmoid_binary_cross_entropy(logits, mask).mean(axis=(1, 2, 3))


def mask_on_map(model: nn.Module, variables: dict, mask: jax.Array, num_windows: int) -> jax.Array | None:
    """Average masks (batch, slice, row, column) over the voxels of the network's lesion map; None if it has no map."""
    coarse = lesion_map_shape(model, variables, (*mask.shape, num_windows))
    if coarse is None:
        return None
    window = tuple(size // cells for size, cells in zip(mask.shape[1:], coarse[1:], strict=True))
    return average_pool(mask.astype(jnp.float32)[..., None], window)[..., 0]


def previous_in_global_batch(x: jax.Array, axis_name: str) -> jax.Array:
    """Roll the global batch by one, across replicas: each example is paired with the one before it."""
    replicas = lax.axis_size(axis_name)
    last = lax.ppermute(x[-1:], axis_name, [(i, (i + 1) % replicas) for i in range(replicas)])
    return jnp.concatenate([last, x[:-1]])


def both_known(known: jax.Array, axis_name: str) -> jax.Array:
    """Return which blends of `mixup` have a known mask, (batch,): those of two examples with one.

    A blend with a mask that is missing, and stored as an empty one, would teach that there is no lesion.
    """
    return known * previous_in_global_batch(known, axis_name)


def mixup(keys: jax.Array, arrays: Any, alpha: float, axis_name: str) -> Any:
    """Blend each example with its neighbour in the global batch (Zhang et al., ICLR 2018).

    Args:
      keys: (batch,), one per example.
      arrays: a pytree of arrays (batch, …), all blended in the same proportion.
      alpha: of the Beta distribution of the proportion.
      axis_name: name of the mapped replica axis.

    Returns:
      The same pytree.
    """
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    share = jnp.maximum(share, 1 - share)  # an example stays mostly itself, and keeps its own weight

    def blend(value: jax.Array) -> jax.Array:
        weight = share.reshape(-1, *[1] * (value.ndim - 1))
        return weight * value + (1 - weight) * previous_in_global_batch(value, axis_name)

    return jax.tree.map(blend, arrays)


def cutmix(keys: jax.Array, arrays: Any, probability: float, axis_name: str) -> tuple[Any, jax.Array]:
    """Replace a box of each example by that of its neighbour in the global batch (CutMix, Yun et al., ICCV 2019).

    Args:
      keys: (batch,), one per example.
      arrays: a pytree of arrays (batch, slice, row, column, ...) on any grids, which get the same box; and of targets
        (batch, output) and weights (batch, 1), which are blended by the box's share of the volume.
      probability: that an example gets a box.
      axis_name: name of the mapped replica axis.

    Returns:
      The same pytree; and whether each example has a box, (batch,).
    """

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        used, size, place = jax.random.split(key, 3)
        length = jax.random.uniform(size) ** (1 / 3)  # of each side, so that the share is uniform
        first = jax.random.uniform(place, (3,)) * (1 - length)
        return jax.random.bernoulli(used, probability), first, length

    is_used, first, length = jax.vmap(draw)(keys)

    def replaced(value: jax.Array) -> jax.Array:
        other = previous_in_global_batch(value, axis_name)
        if value.ndim == 2:
            share = (is_used * length**3)[:, None]
            return (1 - share) * value + share * other
        box = is_used.reshape(-1, 1, 1, 1)
        for axis, size in enumerate(value.shape[1:4]):
            centres = (jnp.arange(size) + 0.5) / size
            inside = (centres >= first[:, axis, None]) & (centres < first[:, axis, None] + length[:, None])
            box &= inside.reshape(-1, *[size if other_axis == axis else 1 for other_axis in range(3)])
        return jnp.where(box.reshape(*box.shape, *[1] * (value.ndim - 4)), other, value)

    return jax.tree.map(replaced, arrays), is_used
