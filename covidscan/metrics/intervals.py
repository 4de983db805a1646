"""How far figures may be off: 95 % intervals of a model's figures, and runs summed up.

Every figure's interval is about its value at these studies' counts by reference label, see
`covidscan.metrics.interval_methods`. The
methods were chosen by their coverage in simulations of 331 studies, 76 of them negative: 94-96 % in the mean over
models, that of the AUPRC 93.6-97.1 %. The tests repeat them with fewer draws, and allow for chance.
"""

from collections.abc import Sequence

import numpy as np

from covidscan.metrics import classification, interval_methods, roc, thresholds
from covidscan.metrics.interval_methods import wilson
from covidscan.metrics.paired_tests import McNemar, SmallestDifference, mcnemar, smallest_difference
from covidscan.metrics.roc import DeLong, DeLongTest, delong, delong_test

__all__ = [
    "DeLong",
    "DeLongTest",
    "McNemar",
    "SmallestDifference",
    "bootstrapped",
    "confusion_intervals",
    "delong",
    "delong_test",
    "intervals",
    "mcnemar",
    "smallest_difference",
    "spread",
    "wilson",
]

Intervals = dict[str, tuple[float, float, str]]

_NUDGE = 1e-4  # of a study, for derivatives


def confusion_intervals(counts: np.ndarray) -> Intervals:
    """Give the intervals that a confusion matrix alone decides, without resampling.

    Args:
      counts: (label, label), a row a reference label.

    Returns:
      Accuracy and balanced accuracy; of two labels also sensitivity, specificity, predictive values and F1. Those
      without a study to judge them by are left out.
    """
    present = [row.sum() > 0 for row in counts]
    recalls = [interval_methods.proportion(row[k], row.sum()) for k, row in enumerate(counts) if present[k]]
    shares = counts.sum(1)[present] / counts.sum()
    found = {"accuracy": (*interval_methods.weighted_sum(recalls, shares), "Wilson")}
    if len(recalls) > 1:
        even = np.full(len(recalls), 1 / len(recalls))
        found["balanced_accuracy"] = (*interval_methods.weighted_sum(recalls, even), "Wilson")
    return found | (_table_intervals(counts) if counts.shape == (2, 2) else {})


def _scaled(part: interval_methods.Estimate, count: int, offset: int = 0) -> interval_methods.Estimate:
    return offset + count * part[0], offset + count * part[1], offset + count * part[2]


def _share(odds: interval_methods.Interval) -> interval_methods.Interval:
    """Turn the ends of odds into those of a proportion."""
    low, high = odds
    return low / (1 + low), high / (1 + high) if np.isfinite(high) else 1.0


def _table_intervals(counts: np.ndarray) -> Intervals:
    """Give the intervals of a 2 x 2 table's other proportions, all from Wilson's of sensitivity and of specificity.

    With fixed counts a label, predictive values and F1 are functions of the ratio of two independent proportions. The
    plain Wilson interval of a predictive value takes the number called positive as fixed, and covers 95-99.9 %.
    """
    (tn, fp), (fn, tp) = (map(int, row) for row in counts)
    positives, negatives = tp + fn, tn + fp
    hit, miss = interval_methods.proportion(tp, positives), interval_methods.proportion(fn, positives)
    clear, alarm = interval_methods.proportion(tn, negatives), interval_methods.proportion(fp, negatives)
    found: dict[str, interval_methods.Interval] = {}
    if positives:
        found["sensitivity"] = hit[1:]
        # TP / (all positives + FP) is F1 / (2 - F1).
        low, high = interval_methods.ratio(_scaled(hit, positives), _scaled(alarm, negatives, positives))
        found["f1"] = 2 * low / (1 + low), min(1.0, 2 * high / (1 + high))
    if negatives:
        found["specificity"] = clear[1:]
    if not (positives and negatives):  # all called positive are right, or none is: nothing but their number is known
        found |= {"ppv": wilson(tp, tp + fp)} if tp + fp else {}
        found |= {"npv": wilson(tn, tn + fn)} if tn + fn else {}
    else:
        found["ppv"] = _share(interval_methods.ratio(_scaled(hit, positives), _scaled(alarm, negatives)))
        found["npv"] = _share(interval_methods.ratio(_scaled(clear, negatives), _scaled(miss, positives)))
    return {name: (*ends, "Wilson") for name, ends in found.items()}


def bootstrapped(task: str, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Give the figures that only a bootstrap gives an interval to, of many confusion matrices at once.

    Args:
      task: "severity" or "classes"; "binary" has none.
      counts: (resample, label, label), a row a reference label.

    Returns:
      Figure -> (resample,), as `metrics.figures` defines it; NaN where not defined.
    """
    if task == "binary":
        return {}
    of_label, of_prediction = counts.sum(2), counts.sum(1)
    studies = of_label.sum(1)
    if task == "classes":
        either = of_label + of_prediction
        f1 = 2 * np.diagonal(counts, axis1=1, axis2=2) / np.where(either > 0, either, 1)
        return {"macro_f1": f1.sum(1) / (either > 0).sum(1)}
    distance = abs(np.subtract.outer(*[np.arange(counts.shape[1])] * 2))
    chance = np.einsum("ri,rj,ij->r", of_label, of_prediction, distance**2) / studies
    observed = np.einsum("rij,ij->r", counts, distance**2)
    return {
        "quadratic_weighted_kappa": 1 - observed / np.where(chance > 0, chance, np.nan),
        "mean_absolute_error": np.einsum("rij,ij->r", counts, distance) / studies,
    }


def _bootstrap_intervals(task: str, counts: np.ndarray, resamples: int, seed: int) -> Intervals:
    """Give intervals, symmetric in log-odds, with the standard error of stratified resamples.

    These figures depend on studies through the confusion matrix only, and resampling the studies of a label draws its
    row from a multinomial distribution. Percentiles of the resamples cover 92-94 % only: kappa and F1 are biased.
    """
    rng, totals, cells = np.random.default_rng(seed), counts.sum(1), counts.size
    share = counts / np.where(totals > 0, totals, 1)[:, None]
    share[totals == 0, 0] = 1  # no study is drawn from it
    drawn = bootstrapped(task, rng.multinomial(totals, share, size=(resamples, len(totals))))
    value = bootstrapped(task, counts[None])
    # By how much one study more of a cell moves a figure; of the empty cells nobody asks.
    nudged = bootstrapped(task, counts + _NUDGE * np.eye(cells).reshape(cells, *counts.shape))
    cell = np.repeat(np.arange(cells), counts.ravel())
    found: Intervals = {}
    for name, [figure] in value.items():
        if np.isnan(figure):
            continue
        lowest = -1 if name == "quadratic_weighted_kappa" else 0
        size = (len(counts) - 1 if name == "mean_absolute_error" else 1) - lowest  # of the figure's range
        influence = (nudged[name] - figure) / _NUDGE / size
        error = float(np.nanstd(drawn[name], ddof=1)) / size
        ends = interval_methods.logit_interval(cell // len(counts), influence[cell], (figure - lowest) / size, error)
        found[name] = (lowest + size * ends[0], lowest + size * ends[1], "bootstrap")
    return found


def intervals(
    task: str,
    label: np.ndarray,
    probability: np.ndarray,
    threshold: thresholds.Threshold = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Give 95 % intervals of every figure that `metrics.figures` gives.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point, see `decisions.decide`.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Figure -> (low, high, method); a figure that is not defined is left out. Methods: "Wilson", for accuracies,
      sensitivity, specificity, predictive values and the F1 of two labels, combined from Wilson's interval of each
      label's share of right answers (`strata.weighted_sum`, `strata.ratio`); "DeLong" for AUROCs; "bootstrap", with the
      standard error over stratified resamples, for the rest.
    """
    label, probability = np.asarray(label, np.int64), np.asarray(probability, np.float64)
    value = classification.figures(task, label, probability, threshold)
    num_labels = probability.shape[1]
    counts = classification.confusion(label, thresholds.decide(task, probability, threshold), num_labels)
    found = confusion_intervals(counts)
    if task == "binary":
        positive, score = label == 1, probability[:, 1]
        if value["auroc"] is not None and value["auprc"] is not None:
            influence = roc.auroc_influence(positive, score)
            found["auroc"] = (*interval_methods.logit_interval(positive, influence, value["auroc"]), "DeLong")
            ends = roc.average_precision_interval(positive, score, value["auprc"], resamples, seed)
            found["auprc"] = (*ends, "bootstrap")
        return {name: found[name] for name, figure in value.items() if figure is not None and name in found}
    found |= _bootstrap_intervals(task, counts, resamples, seed)
    if value["macro_auroc"] is not None:
        ends = roc.macro_auroc_interval(task, label, probability, value["macro_auroc"])
        found["macro_auroc"] = (*ends, "DeLong")
    return {name: found[name] for name, figure in value.items() if figure is not None and name in found}


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Sum up a figure over seeds or folds.

    Args:
      values: one a run; None, where it is not defined, is left out.

    Returns:
      "mean", "sd" (of a sample; None of fewer than two runs), "lowest", "highest" (None of no run), "runs".
    """
    defined = np.asarray([value for value in values if value is not None], np.float64)
    runs = len(defined)
    return {
        "mean": float(defined.mean()) if runs else None,
        "sd": float(defined.std(ddof=1)) if runs > 1 else None,
        "lowest": float(defined.min()) if runs else None,
        "highest": float(defined.max()) if runs else None,
        "runs": runs,
    }
