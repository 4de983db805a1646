"""What is predicted: labels from categories, targets and losses from labels, probabilities from logits."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from tfds_mosmed.errors import UserError

TASKS = ("binary", "severity", "classes")
SEVERITY = {
    "CT-0": 0,
    "CT-1": 1,
    "CT-2": 2,
    "CT-3": 3,
    "CT-4": 3,
}  # CT-4 has two studies: it never stands alone


class Labels(NamedTuple):
    """The labels of a data set's studies.

    Attributes:
      values: (study,), int32.
      names: a name for each label.
    """

    values: np.ndarray
    names: tuple[str, ...]


def labels(task: str, categories: Sequence[str], negative: Sequence[str], names: Sequence[str] | None = None) -> Labels:
    """Turn the categories of studies into labels.

    Args:
      task: one of `TASKS`.
      categories: the category of each study.
      negative: the categories that are label 0 of the binary task, whatever their case.
      names: the names that the model was trained with; None when it is to be trained on these studies, which then must
        be of more than one label.

    Returns:
      The labels with their names.

    Raises:
      UserError: the categories do not fit the task.
    """
    present = sorted(set(categories))
    if task == "binary":
        negatives = {name.lower() for name in negative}
        values = [int(category.lower() not in negatives) for category in categories]
        if min(values) == max(values) and names is None:
            kind = "positive" if values[0] else "negative"
            raise UserError(
                f"--negative_categories={','.join(negative)} makes every study {kind} (categories here: "
                f"{', '.join(present)}): name the category that means no disease, or use --task=classes"
            )
        return Labels(np.asarray(values, np.int32), ("negative", "positive"))
    if task == "severity":
        unknown = [category for category in present if category not in SEVERITY]
        if unknown:
            raise UserError(
                f"--task=severity knows CT-0 to CT-4, the data set has {', '.join(unknown)}: use --task=classes"
            )
        return Labels(np.asarray([SEVERITY[c] for c in categories], np.int32), ("CT-0", "CT-1", "CT-2", "CT-3+4"))
    known = tuple(names or present)
    unknown = [category for category in present if category not in known]
    if unknown:
        raise UserError(
            f"--task=classes was trained on {', '.join(known)}; the data set has {', '.join(unknown)}: rename them"
        )
    return Labels(np.asarray([known.index(c) for c in categories], np.int32), known)


def num_outputs(task: str, num_labels: int) -> int:
    """Count a network's logits: one a label, or one a threshold between ordered labels."""
    return num_labels - 1 if task == "severity" else num_labels


def targets(task: str, label: ArrayLike, num_labels: int, smoothing: float) -> jax.Array:
    """Turn labels (…,) into the probabilities (…, output) that a network should give, smoothed.

    Severity is encoded as label > 0, label > 1, … (Frank & Hall, ECML 2001), so that a miss by two grades costs more.
    """
    if task == "severity":
        exceeds = (jnp.asarray(label)[..., None] > jnp.arange(num_labels - 1)).astype(jnp.float32)
        return exceeds * (1 - smoothing) + smoothing / 2
    return optax.smooth_labels(jax.nn.one_hot(jnp.asarray(label), num_labels), smoothing)


def loss(task: str, logits: ArrayLike, target: jax.Array) -> jax.Array:
    """Cross-entropy of logits (…, output) against target probabilities (…, output), summed over outputs: (…,)."""
    if task == "severity":
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(-1)
    return optax.softmax_cross_entropy(logits, target)


def probabilities(task: str, logits: ArrayLike) -> jax.Array:
    """Turn logits (…, output) into the probability of each label (…, label)."""
    logits = jnp.asarray(logits)
    if task == "severity":
        # Thresholds learned apart may cross; a running minimum keeps P(label > k) from rising with k.
        exceeds = jax.lax.cummin(jax.nn.sigmoid(logits), axis=logits.ndim - 1)
        ones = jnp.ones_like(exceeds[..., :1])
        return -jnp.diff(jnp.concatenate([ones, exceeds, jnp.zeros_like(ones)], axis=-1), axis=-1)
    return jax.nn.softmax(logits)
