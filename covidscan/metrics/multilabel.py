"""Metrics of sets of labels, with intervals over studies, which have all their labels together."""

import numpy as np
from scipy import stats

from covidscan.metrics import interval_methods, roc
from covidscan.metrics.bootstrap import paired_differences
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


def evaluate_sets(
    label: np.ndarray, probability: np.ndarray, decision: np.ndarray, cluster: np.ndarray | None = None
) -> Metrics:
    """Evaluate sets of labels beside their prevalence, which never looks at a scan; see `multilabel_metrics`.

    Args:
      label: (study, label), 0 or 1.
      probability: (study, label).
      decision: (study, label), 0 or 1.
      cluster: (study,), patients, see `interval_methods`.

    Returns:
      The metrics with their intervals, and those of each label's share of these studies as its probability. Intervals
      of AUROCs are DeLong's, with the components of all labels added study by study; that of "label_accuracy" is of the
      mean over studies; both are symmetric in log-odds, see `interval_methods.logit_interval`.
    """
    right = decision == label
    exact = right.all(axis=1)
    effect = interval_methods.design_effect(exact, cluster)
    share = np.broadcast_to(label.mean(axis=0), label.shape)
    baseline = multilabel_metrics(label, share, (share >= 0.5).astype(int))
    ends = {
        "macro_auroc": _macro_interval(label, probability, cluster),
        "micro_auroc": _micro_interval(label, probability, cluster),
        "label_accuracy": _interval(right.mean(axis=1) / len(right), float(right.mean()), len(right), "t", cluster),
        "exact_match": (*interval_methods.proportion(int(exact.sum()), len(exact), effect)[1:], "Wilson"),
    }
    found = {}
    for name, value in multilabel_metrics(label, probability, decision).items():
        low_high, method = (None, None) if value is None else (ends[name][:2], ends[name][2])
        found[name] = Metric(value, low_high, method, baseline[name])
    return found


def macro_auroc(label: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None) -> Metric:
    """Compute the macro average of the AUROCs with its interval, by which baselines and subgroups are compared."""
    value = float(_macro(label, probability)["macro_auroc"])
    return Metric(value, _macro_interval(label, probability, cluster)[:2]) if np.isfinite(value) else Metric(None)


def _influence(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute by how much each row moves an AUROC, where the numbers of positives and negatives are drawn, too.

    Few rows of a label are nearer to their own mean than to that of all such rows: they are moved away from it, as the
    variance of a sample divides by one row less. A single one could have been anywhere between 0 and 1, with the
    variance p (1 - p) at most.
    """
    found = roc.auroc_influence(positive, score)
    for side in (positive, ~positive):
        count = int(side.sum())
        if count == 1:
            mean = (abs(found[side]).sum() * (len(side) - 1) + 1) / (len(side) + 1)
            found[side] = np.sqrt(mean * (1 - mean))
        else:
            rows = len(side)  # of which `standard_error` takes one less
            found[side] = (found[side] - found[side].mean()) * np.sqrt(count / (count - 1) * (rows - 1) / rows)
    return found


def _macro_interval(
    label: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None
) -> tuple[float, float, str]:
    """Return the interval of the mean of the AUROCs that are defined, and its method."""
    known = [index for index, yes in enumerate(label.T) if 0 < yes.sum() < len(yes)]
    if not known:
        return 0.0, 1.0, ""
    influence = np.mean([_influence(label[:, index] == 1, probability[:, index]) for index in known], axis=0)
    has = label[:, known].sum(axis=0)
    rarest = int(min(has.min(), (len(label) - has).min()))
    return _interval(influence, float(_macro(label, probability)["macro_auroc"]), rarest, "DeLong", cluster)


def _micro_interval(label: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None) -> tuple[float, float, str]:
    """Return the interval of the AUROC of all pairs of study and label, and its method."""
    if not 0 < label.sum() < label.size:
        return 0.0, 1.0, ""
    influence = _influence(label.ravel() == 1, probability.ravel()).reshape(label.shape).sum(axis=1)
    estimate = float(aurocs(label.reshape(-1, 1), probability.reshape(-1, 1))[0])
    rarest = int(min((label == 1).any(axis=1).sum(), (label == 0).any(axis=1).sum()))
    return _interval(influence, estimate, rarest, "DeLong", cluster)


def _interval(
    influence: np.ndarray, estimate: float, rarest: int, usual: str, cluster: np.ndarray | None
) -> tuple[float, float, str]:
    together = np.zeros(len(influence))  # the studies are one stratum: how many have a label is drawn, too
    ends = interval_methods.logit_interval(together, influence, estimate, rarest=rarest, cluster=cluster)
    return *ends, interval_methods.logit_method(together, influence, estimate, usual, cluster)


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

    found = paired_differences(difference, label, probability, other)
    if any(each.interval[0] == each.interval[1] for each in found.values()):
        found["macro_auroc"] = _without_spread(label, probability, other, found["macro_auroc"].difference)
    return found


def _without_spread(label: np.ndarray, a: np.ndarray, b: np.ndarray, difference: float) -> Difference:
    """Compare models whose difference is the same in all resamples, as of two perfect ones or a constant one."""
    if np.array_equal(*(stats.rankdata(each, axis=0) for each in (a, b))):
        return Difference(0.0, (0.0, 0.0), 1.0, "bootstrap")
    # As if the models were independent, which is conservative (MOVER, see `roc.delong_test`).
    (value, low, high), (other, other_low, other_high) = (
        (float(_macro(label, each)["macro_auroc"]), *_macro_interval(label, each)[:2]) for each in (a, b)
    )
    below, above = np.hypot(value - low, other_high - other), np.hypot(high - value, other - other_low)
    z = difference * interval_methods.Z / (below if difference > 0 else above)
    ends = float(difference - below), float(difference + above)
    return Difference(difference, ends, float(2 * stats.norm.sf(abs(z))), "MOVER")
