"""The few figures by which baselines and subgroups are compared, each with its interval."""

from typing import Any

import numpy as np

from covidscan.metrics import classification, thresholds
from covidscan.metrics.intervals import delong, wilson

Metrics = dict[str, dict[str, Any]]


def auroc_figure(positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Give the AUROC of (study,) scores and its 95 % DeLong interval as {"value", "interval"}; None if not defined."""
    found = delong(positive, score)
    return {"value": found.auroc, "interval": None if found.interval is None else list(found.interval)}


def judged_figures(task: str, label: np.ndarray, probability: np.ndarray, threshold: thresholds.Threshold) -> Metrics:
    """Judge label (study,) and probability (study, label).

    Returns:
      Figure -> {"value", "interval"}, None where not defined. "accuracy" is that of the task, with a Wilson interval.
      Of binary and severity, "auroc", "sensitivity" and "specificity" are those of the first question, whether a study
      is positive, or graver than the first grade, with DeLong and Wilson intervals. Of classes, "auroc" is the mean
      over the classes, each against the rest, without an interval.
    """
    accuracy = _share(thresholds.decide(task, probability, threshold) == label)
    if task == "classes":
        return {"auroc": {"value": classification.auroc(label, probability), "interval": None}, "accuracy": accuracy}
    positive, score = thresholds.dichotomies(task, label, probability)[0]
    called = score >= threshold
    return {
        "auroc": auroc_figure(positive, score),
        "sensitivity": _share(called[positive]),
        "specificity": _share(~called[~positive]),
        "accuracy": accuracy,
    }


def _share(right: np.ndarray) -> dict[str, Any]:
    if not len(right):
        return {"value": None, "interval": None}
    return {"value": float(right.mean()), "interval": list(wilson(int(right.sum()), len(right)))}
