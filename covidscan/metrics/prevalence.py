"""Adaptation of predictions to the prevalence of another clinic (Saerens et al., Neural Computation 14, 2002).

It assumes that diseased studies look there as they did among the validation studies, and healthy ones too, so that only
their shares differ: the log-odds are shifted by the difference of the log-odds of both prevalences.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from covidscan.metrics.results import OperatingPoint
from covidscan.metrics.thresholds import Threshold
from tfds_mosmed.errors import UserError

# The threshold of these is of ranks, and moves with the probabilities: the decisions stay. Of the others it is a
# probability at which both errors cost alike, whatever the prevalence (Elkan, IJCAI 2001): the decisions change.
OF_RANKS = ("youden", "sensitivity")


def check(task: str, calibrated_to: float | None, prevalence: float | None, name: str) -> None:
    """Check that predictions can be adapted.

    Args:
      task: of the network.
      calibrated_to: see `OperatingPoint.prevalence`.
      prevalence: of the clinic; None: nothing is adapted.
      name: of the run or model.

    Raises:
      UserError: they cannot.
    """
    if prevalence is None:
        return
    flag = f"--prevalence={prevalence:g}"
    if task != "binary":
        raise UserError(f"{flag}: {name} has --task={task}, and a prevalence is that of --task=binary: leave it out")
    if calibrated_to is None:
        raise UserError(
            f"{flag}: the probabilities of {name} are not calibrated to one known prevalence (an earlier version, "
            "fewer than 20 validation studies, studies told apart without an error, or networks of very different "
            "ones): leave it out, or train with more validation studies"
        )


def check_criteria(criteria: Iterable[str], prevalence: float | None) -> None:
    """Check that the thresholds of networks can be adapted together.

    Args:
      criteria: of the networks' operating points; "" of several at once.
      prevalence: of the clinic; None: nothing is adapted.

    Raises:
      UserError: they were chosen by different ones, of which some move with the prevalence.
    """
    found = set(criteria)
    if prevalence is not None and (len(found) > 1 or "" in found):
        raise UserError(
            f"--prevalence={prevalence:g}: the networks' thresholds were chosen by different --operating_point, so "
            "they cannot be adapted together: give runs of one"
        )


def shift(probability: np.ndarray, calibrated_to: float, prevalence: float) -> np.ndarray:
    """Adapt probabilities (…, label) of the task "binary" to a prevalence."""
    weights = np.asarray([(1 - prevalence) / (1 - calibrated_to), prevalence / calibrated_to])
    weighted = np.asarray(probability, np.float64) * weights
    return weighted / weighted.sum(-1, keepdims=True)


def shift_threshold(criterion: str, threshold: Threshold, calibrated_to: float, prevalence: float) -> Threshold:
    """Adapt a threshold to a prevalence; see `OF_RANKS`."""
    if threshold is None or criterion not in OF_RANKS:
        return threshold
    both = np.stack([1 - np.asarray(threshold), np.asarray(threshold)], axis=-1)
    shifted = shift(both, calibrated_to, prevalence)[..., 1]
    return shifted if isinstance(threshold, np.ndarray) else float(shifted)


def describe(criterion: str, calibrated_to: float, prevalence: float) -> str:
    """Write sentences on what was adapted, and what that assumes."""
    moved = "the threshold with them, so that the decisions stay" if criterion in OF_RANKS else "the threshold not"
    return (
        f" Probabilities are adapted from the prevalence of {calibrated_to:.3g} among the validation studies to "
        f"{prevalence:.3g}, {moved} (Saerens et al. 2002): assumed is that diseased and healthy studies look alike in "
        "both places."
    )


def adapt(point: OperatingPoint, prevalence: float) -> OperatingPoint:
    """Adapt an operating point, whose prevalence is known; see `shift_threshold`."""
    assert point.prevalence is not None
    threshold = shift_threshold(point.criterion, point.threshold, point.prevalence, prevalence)
    return dataclasses.replace(
        point,
        threshold=None if threshold is None else float(threshold),
        description=point.description + describe(point.criterion, point.prevalence, prevalence),
        adapted_to=prevalence,
    )
