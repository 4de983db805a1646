"""Headline metric of a task: it is logged during training, and chooses the checkpoint."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from covidscan.metrics.classification import mean_auroc


class Headline(NamedTuple):
    """Metric that chooses the checkpoint of a task.

    Attributes:
      name: in the logs.
      title: for the reader.
      sign: 1 where higher is better, -1 where lower is.
      compute: from label (study,) and probability (study, label), or value (study, 1); None where it is not defined.
    """

    name: str
    title: str
    sign: int
    compute: Callable[[np.ndarray, np.ndarray], float | None]

    @property
    def extreme(self) -> str:
        """Return "highest" or "lowest", whichever is best."""
        return "highest" if self.sign > 0 else "lowest"


def headline(task: str) -> Headline:
    """Return the headline metric of a task."""
    if task == "regression":
        return Headline("mae", "mean absolute error", -1, _mean_absolute_error)
    return Headline("auroc", "AUROC", 1, lambda label, probability: mean_auroc(label, probability, task))


def _mean_absolute_error(label: np.ndarray, value: np.ndarray) -> float | None:
    error = np.abs(np.asarray(value, np.float64)[:, 0] - label)
    return float(error.mean()) if np.isfinite(error).all() else None
