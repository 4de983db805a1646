"""Metrics of sets of labels, with bootstrap intervals over studies."""

import numpy as np
from scipy import stats

from covidscan.metrics.bootstrap import paired_differences, percentile_intervals, with_intervals
from covidscan.metrics.classification import Values
from covidscan.metrics.results import Difference, Metric, Metrics


def aurocs(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute the AUROCs along the second last axis, from ranks.

    Args:
      label: (…, study, label), 0 or 1.
      score: (…, study, label), higher for 1.

    Returns:
      (…, label); NaN where all studies are 0 or all are 1.
    """
    ranks = stats.rankdata(score, axis=-2)
    positive = label.sum(axis=-2)
    pairs = positive * (label.shape[-2] - positive)
    above = (ranks * label).sum(axis=-2) - positive * (positive + 1) / 2
    return above / np.where(pairs > 0, pairs, np.nan)


def _macro(label: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
    by_label = aurocs(label, probability)
    known = np.isfinite(by_label)
    count = known.sum(axis=-1)
    return {"macro_auroc": np.where(known, by_label, 0).sum(axis=-1) / np.where(count > 0, count, np.nan)}


def _compute(label: np.ndarray, probability: np.ndarray, decision: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of arrays (…, study, label); NaN where not defined."""
    flat = (*label.shape[:-2], -1, 1)
    right = label == decision
    return {
        **_macro(label, probability),
        "micro_auroc": aurocs(label.reshape(flat), probability.reshape(flat))[..., 0],
        "label_accuracy": right.mean(axis=(-2, -1)),
        "exact_match": right.all(axis=-1).mean(axis=-1),
    }


def multilabel_metrics(label: np.ndarray, probability: np.ndarray, decision: np.ndarray) -> Values:
    """Evaluate sets of labels.

    Args:
      label: (study, label), 0 or 1.
      probability: (study, label).
      decision: (study, label), 0 or 1.

    Returns:
      "macro_auroc", the mean over the labels that some studies have and some have not; "micro_auroc", of all pairs of
      study and label together, which rises with the differences of prevalence alone; "label_accuracy", the share of
      these pairs that is right; "exact_match", the share of studies whose whole set is right. None where not defined.
    """
    found = _compute(label, probability, decision)
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def evaluate_sets(label: np.ndarray, probability: np.ndarray, decision: np.ndarray) -> Metrics:
    """Evaluate sets of labels beside their prevalence, which never looks at a scan; see `multilabel_metrics`.

    Returns:
      The metrics with percentile intervals, and those of each label's share of these studies as its probability.
    """
    ends = percentile_intervals(_compute, label, probability, decision)
    share = np.broadcast_to(label.mean(axis=0), label.shape)
    baseline = multilabel_metrics(label, share, (share >= 0.5).astype(int))
    return with_intervals(multilabel_metrics(label, probability, decision), ends, baseline)


def macro_auroc(label: np.ndarray, probability: np.ndarray) -> Metric:
    """Compute the macro average of the AUROCs with its interval, by which baselines and subgroups are compared."""
    value = float(_macro(label, probability)["macro_auroc"])
    if not np.isfinite(value):
        return Metric(None)
    return Metric(value, percentile_intervals(_macro, label, probability).get("macro_auroc"))


def compare_macro_aurocs(label: np.ndarray, probability: np.ndarray, other: np.ndarray) -> dict[str, Difference]:
    """Compare the macro averages of two models on the same studies, by resampling these.

    Args:
      label: (study, label), 0 or 1.
      probability: (study, label), of one.
      other: (study, label), of the other.

    Returns:
      "macro_auroc", the first's minus the other's; none where no label has both answers.
    """

    def difference(label: np.ndarray, probability: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value - _macro(label, other)[name] for name, value in _macro(label, probability).items()}

    return paired_differences(difference, label, probability, other)
