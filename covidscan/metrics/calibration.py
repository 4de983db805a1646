"""Calibration of probabilities: reliability and decision curves."""

from typing import Any

import numpy as np
from scipy import optimize, special

from covidscan.metrics import interval_methods, thresholds
from covidscan.metrics.results import DecisionCurve, Metric, Reliability, ReliabilityBin

_MAX_BINS, _STUDIES_PER_BIN = 10, 10
# Networks compute in float32: a probability nearer to 0 or 1 carries no more information than this.
_FLOAT32_EPS = float(np.finfo(np.float32).eps)


def to_log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities, float64; those of 0 and 1 are finite."""
    return special.logit(np.clip(probability, _FLOAT32_EPS, 1 - _FLOAT32_EPS))


def reliability(
    positive: np.ndarray, score: np.ndarray, strata: np.ndarray | None = None, cluster: np.ndarray | None = None
) -> Reliability:
    """Compare probabilities with observed outcomes (Van Calster et al., BMC Medicine 2019).

    Metrics are: "brier", the mean squared difference; "ece", the expected calibration error, the mean distance between
    mean probability and share of positives over bins, weighted by their studies; "slope" of the label's logistic
    regression on the log-odds (below 1: too extreme); "intercept", calibration in the large, that regression's
    intercept with the slope fixed at 1 (below 0: too high). They are None where not defined: one label only, or scores
    that separate the labels completely.

    Intervals are about these studies' counts of each label (`interval_methods`), so, of two labels, an intercept's is
    narrower than one that counts chance in the number of positives. The ECE has none: it cannot fall below 0, so chance
    raises it, to 0.03-0.05 for a perfectly calibrated model on 331 studies, and resampling would raise it further.

    Bins have about as many studies each, because bins of equal width leave most with too few.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), probability of positive.
      strata: (study,), reference label, whose counts are fixed; None: `positive` is it. Whether the likeliest of
        several labels is right is none: how many are right is chance.
      cluster: (study,), patients, see `interval_methods`; the bins' intervals take studies as independent.

    Returns:
      The metrics, and at most ten bins with at least ten studies each where there are as many.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    strata = positive if strata is None else strata
    log_odds = to_log_odds(score)
    squares, bins = (score - positive) ** 2, _bins(positive, score)
    brier = float(squares.mean())
    ece = sum(part.count * abs(part.mean_probability - part.observed) for part in bins) / len(score)
    metrics = {
        "brier": Metric(
            brier,
            interval_methods.logit_interval(strata, squares / len(score), brier, cluster=cluster),
            interval_methods.logit_method(strata, squares / len(score), brier, "delta method", cluster),
        ),
        "ece": _metric(float(ece), None),
        "slope": _slope(positive, log_odds, strata, cluster),
        "intercept": _intercept(positive, log_odds, strata, cluster),
    }
    return Reliability(metrics, bins)


def _bins(positive: np.ndarray, score: np.ndarray) -> list[ReliabilityBin]:
    """Sort studies into at most ten bins with about as many studies each, equal scores together."""
    count = min(max(len(score) // _STUDIES_PER_BIN, 1), _MAX_BINS)
    starts = [part[0] for part in np.array_split(np.sort(score), count)]
    index = np.searchsorted(np.unique(starts), score, side="right")
    bins = []
    for number in np.unique(index):
        members, yes = score[index == number], positive[index == number]
        bins.append(
            ReliabilityBin(
                low=float(members.min()),
                high=float(members.max()),
                mean_probability=float(members.mean()),
                observed=float(yes.mean()),
                count=len(members),
                interval=interval_methods.wilson(int(yes.sum()), len(yes)),
            )
        )
    return bins


def _metric(value: float | None, interval: interval_methods.Interval | None) -> Metric:
    return Metric(value, interval, "delta method" if interval else None)


def _slope(positive: np.ndarray, log_odds: np.ndarray, strata: np.ndarray, cluster: np.ndarray | None) -> Metric:
    """Fit the label on the log-odds and a constant: the slope, its interval by the sandwich estimator."""
    yes, no = log_odds[positive], log_odds[~positive]
    if not (len(yes) and len(no) and yes.min() < no.max() and no.min() < yes.max()):
        return _metric(None, None)  # no finite fit
    design = log_odds[:, None]
    from sklearn.linear_model import LogisticRegression  # imported lazily: slow, and unused by predict

    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(design, positive)
    fitted = fit.predict_proba(design)[:, 1]
    weight = fitted * (1 - fitted)
    centred = log_odds - weight @ log_odds / weight.sum()
    influence = centred * (positive - fitted) / (weight @ centred**2)
    error, _ = interval_methods.standard_error(strata, influence, cluster)
    slope = float(fit.coef_[0, 0])
    if error is None:
        return _metric(slope, None)
    # Student's factor of `standard_error`, of fewer degrees of freedom, covers up to 97 % here.
    freedom = len(np.unique(cluster)) - 1 if interval_methods.has_repeats(cluster) else np.inf
    factor = interval_methods.student_factor(freedom)
    return _metric(slope, (slope - factor * error, slope + factor * error))


def _intercept(positive: np.ndarray, log_odds: np.ndarray, strata: np.ndarray, cluster: np.ndarray | None) -> Metric:
    """Find the shift of all log-odds at which as many positives are expected as were observed."""
    if positive.all() or not positive.any():
        return _metric(None, None)
    reach = float(abs(log_odds).max()) + 40
    root: Any = optimize.brentq(lambda shift: (positive - special.expit(shift + log_odds)).sum(), -reach, reach)
    value = float(root)
    fitted = special.expit(value + log_odds)
    influence = (positive - fitted) / (fitted * (1 - fitted)).sum()
    error, factor = interval_methods.standard_error(strata, influence, cluster)
    if not error or error < 1e-9:
        return _metric(value, None)
    return _metric(value, (value - factor * error, value + factor * error))


def decision_curve(positive: np.ndarray, score: np.ndarray) -> DecisionCurve:
    """Compute the net benefit of acting on a probability (Vickers & Elkin, Medical Decision Making 2006).

    At threshold t a false positive costs t / (1 - t) of what a true positive gains; per study. Treating none gives 0.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), probability of positive.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    threshold = np.arange(1, 100) / 100
    odds = threshold / (1 - threshold)
    called = score >= threshold[:, None]
    model = (called & positive).mean(1) - odds * (called & ~positive).mean(1)
    prevalence = float(positive.mean())
    treat_all = prevalence - odds * (1 - prevalence)
    return DecisionCurve(threshold.tolist(), model.tolist(), treat_all.tolist(), prevalence)


def binarize(task: str, label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Reduce a task to the yes-or-no question whose calibration is examined.

    Args:
      task: "binary": label 1. "severity": graver than the first grade. "classes": whether the likeliest label is right.
      label: (study,).
      probability: (study, label).

    Returns:
      Whether the answer is yes, (study,) bool; the probability of yes, (study,) float64; the question.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    if task == "classes":
        return label == probability.argmax(1), probability.max(1), "Is the likeliest label right?"
    question = "Is the study positive?" if task == "binary" else "Is the study graver than the first grade?"
    return *thresholds.dichotomies(task, label, probability)[0], question
