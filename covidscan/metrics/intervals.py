"""Confidence intervals (95 %) of classification metrics, and the spread of metrics over runs.

Each interval is about the metric at these studies' counts by reference label, see `interval_methods`. The methods were
chosen by their coverage in simulations of 331 studies, 76 of them negative: 94-96 % in the mean over models, that of
the AUPRC 93.6-97.1 %. The tests repeat the simulations with fewer draws, and allow for chance.
"""

from collections.abc import Sequence

import numpy as np

from covidscan.metrics import classification, interval_methods, multilabel, regression, roc, thresholds
from covidscan.metrics.interval_methods import Interval, proportion
from covidscan.metrics.results import Metric, Metrics, Spread

Intervals = dict[str, tuple[float, float, str]]

FEWEST_CALLED = (
    20  # studies that are called positive, or negative, below which their predictive value's interval widens
)
_NUDGE = 1e-4  # of a study, for derivatives


def confusion_intervals(counts: np.ndarray, effects: Sequence[float] | None = None) -> Intervals:
    """Compute the intervals that depend on the confusion matrix alone, without resampling.

    Args:
      counts: (label, label), a row a reference label.
      effects: (label,), the design effect of each label's share of right predictions; None: 1.

    Returns:
      Accuracy and balanced accuracy; of two labels also sensitivity, specificity, predictive values and F1. Those
      that no study defines are left out.
    """
    present, effects = [row.sum() > 0 for row in counts], effects or [1.0] * len(counts)
    recalls = [proportion(row[k], row.sum(), effects[k]) for k, row in enumerate(counts) if present[k]]
    shares = counts.sum(1)[present] / counts.sum()
    found = {"accuracy": (*interval_methods.weighted_sum(recalls, shares), "Wilson")}
    if len(recalls) > 1:
        even = np.full(len(recalls), 1 / len(recalls))
        found["balanced_accuracy"] = (*interval_methods.weighted_sum(recalls, even), "Wilson")
    return found | (_table_intervals(counts, effects) if counts.shape == (2, 2) else {})


def _effects(label: np.ndarray, decision: np.ndarray, num_labels: int, cluster: np.ndarray | None) -> list[float]:
    """Return the design effect of each label's share of right predictions."""
    if cluster is None:
        return [1.0] * num_labels
    members = [label == k for k in range(num_labels)]
    return [interval_methods.design_effect(decision[of] == k, cluster[of]) for k, of in enumerate(members)]


def _scaled(part: interval_methods.Estimate, count: int, offset: int = 0) -> interval_methods.Estimate:
    return offset + count * part[0], offset + count * part[1], offset + count * part[2]


def _odds_to_share(odds: interval_methods.Interval) -> interval_methods.Interval:
    """Turn an interval of odds into that of a proportion."""
    low, high = odds
    return low / (1 + low), high / (1 + high) if np.isfinite(high) else 1.0


def _predictive_value(
    right: interval_methods.Estimate, wrong: interval_methods.Estimate, called: tuple[int, int], effect: float
) -> Interval:
    """Return the interval of right / (right + wrong); `called` is how many are right, of how many called so."""
    low, high = _odds_to_share(interval_methods.ratio(right, wrong))
    if not 0 < called[1] < FEWEST_CALLED * effect:
        return low, high
    _, least, most = proportion(*called, effect)
    return min(low, least), max(high, most)


def _table_intervals(counts: np.ndarray, effects: Sequence[float]) -> Intervals:
    """Compute the intervals of a 2 x 2 table's other proportions, from Wilson's of sensitivity and specificity.

    With fixed counts a label, predictive values and F1 are functions of the ratio of two independent proportions. The
    plain Wilson interval of a predictive value takes the number called positive as fixed, and covers 95-99.9 %. The
    interval of the ratio covers less than 90 % where few are called so, as sensitivity and specificity then hardly tell
    their number: 2 of 2 gave 0.655 to 1. Below `FEWEST_CALLED` the wider of both ends is taken.
    """
    (tn, fp), (fn, tp) = (map(int, row) for row in counts)
    positives, negatives = tp + fn, tn + fp
    hit, miss = proportion(tp, positives, effects[1]), proportion(fn, positives, effects[1])
    clear, alarm = proportion(tn, negatives, effects[0]), proportion(fp, negatives, effects[0])
    effect = max(effects)
    found: dict[str, interval_methods.Interval] = {}
    if positives:
        found["sensitivity"] = hit[1:]
        # TP / (all positives + FP) is F1 / (2 - F1).
        low, high = interval_methods.ratio(_scaled(hit, positives), _scaled(alarm, negatives, positives))
        found["f1"] = 2 * low / (1 + low), min(1.0, 2 * high / (1 + high))
    if negatives:
        found["specificity"] = clear[1:]
    if not (positives and negatives):  # all called positive are right, or none is
        found |= {"ppv": proportion(tp, tp + fp, effect)[1:]} if tp + fp else {}
        found |= {"npv": proportion(tn, tn + fn, effect)[1:]} if tn + fn else {}
    else:
        found["ppv"] = _predictive_value(_scaled(hit, positives), _scaled(alarm, negatives), (tp, tp + fp), effect)
        found["npv"] = _predictive_value(_scaled(clear, negatives), _scaled(miss, positives), (tn, tn + fn), effect)
    return {name: (*ends, "Wilson") for name, ends in found.items()}


def bootstrap_metrics(task: str, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics that need a bootstrap for their intervals, of many confusion matrices at once.

    Args:
      task: "severity" or "classes"; "binary" has none.
      counts: (resample, label, label), a row a reference label.

    Returns:
      Metric -> (resample,), as `classification.compute_metrics` defines it; NaN where not defined.
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


def _bootstrap_intervals(
    task: str, counts: np.ndarray, resamples: int, seed: int, cluster: np.ndarray | None
) -> Intervals:
    """Compute intervals, symmetric in log-odds, with the standard error of stratified resamples.

    These metrics depend on studies through the confusion matrix only, and resampling the studies of a label draws its
    row from a multinomial distribution. Percentiles of the resamples cover 92-94 % only: kappa and F1 are biased.
    `cluster` are the patients of the studies, these in the order of the cells of `counts`.
    """
    rng, totals, cells = np.random.default_rng(seed), counts.sum(1), counts.size
    share = counts / np.where(totals > 0, totals, 1)[:, None]
    share[totals == 0, 0] = 1  # no study is drawn from it
    drawn = bootstrap_metrics(task, rng.multinomial(totals, share, size=(resamples, len(totals))))
    value = bootstrap_metrics(task, counts[None])
    # The derivative of a metric by the studies of a cell; that of empty cells is not used.
    nudged = bootstrap_metrics(task, counts + _NUDGE * np.eye(cells).reshape(cells, *counts.shape))
    cell = np.repeat(np.arange(cells), counts.ravel())
    found: Intervals = {}
    for name, [metric] in value.items():
        if np.isnan(metric):
            continue
        lowest = -1 if name == "quadratic_weighted_kappa" else 0
        size = (len(counts) - 1 if name == "mean_absolute_error" else 1) - lowest  # of the metric's range
        influence = (nudged[name] - metric) / _NUDGE / size
        error = float(np.nanstd(drawn[name], ddof=1)) / size
        studies = cell // len(counts), influence[cell], (metric - lowest) / size
        ends = interval_methods.logit_interval(*studies, error, cluster=cluster)
        method = interval_methods.logit_method(*studies, "bootstrap", cluster)
        found[name] = (lowest + size * ends[0], lowest + size * ends[1], method)
    return found


def confidence_intervals(
    task: str,
    label: np.ndarray,
    probability: np.ndarray,
    threshold: thresholds.Threshold = 0.5,
    resamples: int = 2000,
    seed: int = 0,
    cluster: np.ndarray | None = None,
) -> Intervals:
    """Compute 95 % intervals of the metrics of `classification.compute_metrics`.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point, see `thresholds.decide`.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      cluster: (study,), patients, see `interval_methods`.

    Returns:
      Metric -> (low, high, method); those that are not defined are left out. Methods: "Wilson", for accuracies,
      sensitivity, specificity, predictive values and the F1 of two labels, combined from Wilson's interval of each
      label's share of right predictions (`weighted_sum` and `ratio` of `interval_methods`); "DeLong" for AUROCs;
      "bootstrap", with the standard error over stratified resamples, for the rest; see `interval_methods.logit_method`.
    """
    label, probability = np.asarray(label, np.int64), np.asarray(probability, np.float64)
    value = classification.compute_metrics(task, label, probability, threshold)
    num_labels, decision = probability.shape[1], thresholds.decide(task, probability, threshold)
    counts = classification.confusion_matrix(label, decision, num_labels)
    found = confusion_intervals(counts, _effects(label, decision, num_labels, cluster))
    if task == "binary":
        positive, score = label == 1, probability[:, 1]
        if value["auroc"] is not None and value["auprc"] is not None:
            found["auroc"] = _ends(roc.auroc_metric(positive, score, cluster))
            ends = roc.average_precision_interval(positive, score, value["auprc"], resamples, seed, cluster)
            influence = roc.average_precision_influence(positive, score)
            method = interval_methods.logit_method(positive, influence, value["auprc"], "bootstrap", cluster)
            found["auprc"] = (*ends, method)
    else:
        by_cell = None if cluster is None else cluster[np.lexsort((decision, label))]
        found |= _bootstrap_intervals(task, counts, resamples, seed, by_cell)
        if value["macro_auroc"] is not None:
            found["macro_auroc"] = roc.macro_auroc_interval(task, label, probability, value["macro_auroc"], cluster)
    return {name: found[name] for name, metric in value.items() if metric is not None and name in found}


def key_metrics(
    task: str,
    label: np.ndarray,
    probability: np.ndarray,
    threshold: thresholds.Threshold,
    cluster: np.ndarray | None = None,
) -> Metrics:
    """Compute the few metrics by which baselines and subgroups are compared, each with the interval of the table.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point, see `thresholds.decide`.
      cluster: (study,), patients, see `interval_methods`.

    Returns:
      "accuracy" is that of the task. Of binary and severity, "auroc", "sensitivity" and "specificity" are those of the
      first question, whether a study is positive, or graver than the first grade. Of classes, "auroc" is the mean over
      the classes, each against the rest. Intervals are those of `confidence_intervals`. Of regression, "mae" and
      "rmse". Of multilabel "auroc", the mean over the labels.
    """
    if task == "regression":
        return regression.errors(label, probability[:, 0])
    if task == "multilabel":
        return {"auroc": multilabel.macro_auroc(label, probability, cluster)}
    decision, num_labels = thresholds.decide(task, probability, threshold), probability.shape[1]
    counts = classification.confusion_matrix(label, decision, num_labels)
    ends = confusion_intervals(counts, _effects(label, decision, num_labels, cluster))
    accuracy = _metric(float((decision == label).mean()), ends["accuracy"])
    if task == "classes":
        auroc = classification.mean_auroc(label, probability)
        ends = None if auroc is None else roc.macro_auroc_interval(task, label, probability, auroc, cluster)
        return {"auroc": _metric(auroc, ends), "accuracy": accuracy}
    positive, score = thresholds.dichotomies(task, label, probability)[0]
    called = score >= thresholds.of_question(threshold, 0)
    shares = {"sensitivity": called[positive], "specificity": ~called[~positive]}
    ends = confusion_intervals(
        classification.confusion_matrix(positive, called, 2), _effects(positive, called, 2, cluster)
    )
    proportions = {
        name: _metric(float(right.mean()) if len(right) else None, ends.get(name)) for name, right in shares.items()
    }
    auroc = roc.delong(positive, score, cluster)
    return {"auroc": Metric(auroc.auroc, auroc.interval), **proportions, "accuracy": accuracy}


def _metric(value: float | None, ends: tuple[float, float, str] | None) -> Metric:
    return Metric(value) if ends is None else Metric(value, ends[:2])


def _ends(metric: Metric) -> tuple[float, float, str]:
    assert metric.interval is not None
    assert metric.method is not None
    return *metric.interval, metric.method


def spread(values: Sequence[float | None]) -> Spread:
    """Summarize a metric over seeds or folds.

    Args:
      values: one a run; None, where it is not defined, is left out.
    """
    defined = np.asarray([value for value in values if value is not None], np.float64)
    runs = len(defined)
    return Spread(
        mean=float(defined.mean()) if runs else None,
        sd=float(defined.std(ddof=1)) if runs > 1 else None,
        lowest=float(defined.min()) if runs else None,
        highest=float(defined.max()) if runs else None,
        runs=runs,
    )
