"""Whether probabilities mean what they say."""

from typing import Any

import numpy as np
from scipy import optimize, special

from covidscan.metrics import interval_methods

_MOST_BINS, _STUDIES_PER_BIN = 10, 10
# Networks compute in float32: a probability nearer to 0 or 1 says no more than this.
_NEAREST = float(np.finfo(np.float32).eps)


def _bins(positive: np.ndarray, score: np.ndarray) -> list[dict[str, Any]]:
    """Sort studies into at most ten bins with about as many studies each, equal scores together."""
    count = min(max(len(score) // _STUDIES_PER_BIN, 1), _MOST_BINS)
    starts = [part[0] for part in np.array_split(np.sort(score), count)]
    place = np.searchsorted(np.unique(starts), score, side="right")
    bins = []
    for number in np.unique(place):
        members, yes = score[place == number], positive[place == number]
        bins.append(
            {
                "low": float(members.min()),
                "high": float(members.max()),
                "mean_probability": float(members.mean()),
                "observed": float(yes.mean()),
                "count": len(members),
                "interval": list(interval_methods.wilson(int(yes.sum()), len(yes))),
            }
        )
    return bins


def _figure(value: float | None, interval: interval_methods.Interval | None) -> dict[str, Any]:
    method = "delta method" if interval else None
    return {"value": value, "interval": list(interval) if interval else None, "method": method}


def _slope(positive: np.ndarray, log_odds: np.ndarray) -> dict[str, Any]:
    """Fit the label on the log-odds and on a constant: the slope, with an interval that does not trust the model."""
    yes, no = log_odds[positive], log_odds[~positive]
    if not (len(yes) and len(no) and yes.min() < no.max() and no.min() < yes.max()):
        return _figure(None, None)  # no finite fit
    design = log_odds[:, None]
    from sklearn.linear_model import LogisticRegression  # takes as long to import as JAX, and predicting needs it not

    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(design, positive)
    fitted = fit.predict_proba(design)[:, 1]
    weight = fitted * (1 - fitted)
    centred = log_odds - weight @ log_odds / weight.sum()
    error, _ = interval_methods.spread_of(positive, centred * (positive - fitted) / (weight @ centred**2))
    slope = float(fit.coef_[0, 0])
    if error is None:
        return _figure(slope, None)
    # The normal factor: Student's of `spread_of` covers up to 97 % here.
    return _figure(slope, (slope - interval_methods.Z * error, slope + interval_methods.Z * error))


def _intercept(positive: np.ndarray, log_odds: np.ndarray) -> dict[str, Any]:
    """Find what is to be added to all log-odds for as many positives as there are to be expected."""
    if positive.all() or not positive.any():
        return _figure(None, None)
    reach = float(abs(log_odds).max()) + 40
    root: Any = optimize.brentq(lambda shift: (positive - special.expit(shift + log_odds)).sum(), -reach, reach)
    value = float(root)
    fitted = special.expit(value + log_odds)
    error, factor = interval_methods.spread_of(positive, (positive - fitted) / (fitted * (1 - fitted)).sum())
    if not error or error < 1e-9:
        return _figure(value, None)
    return _figure(value, (value - factor * error, value + factor * error))


def calibration(positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Compare probabilities with what came true (Van Calster et al., BMC Medicine 2019).

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), probability of positive.

    Returns:
      "figures": "brier", the mean squared difference; "ece", the mean distance between mean probability and share of
      positives over bins, weighted by their studies; "slope" of the label's logistic regression on the log-odds
      (below 1: too extreme); "intercept", calibration in the large, that regression's with the slope fixed at 1 (below
      0: too high); each {"value", "interval", "method"}, None where not defined (one label only, or scores that part
      the labels without overlap). Intervals hold at these studies' counts a label (`strata`), so that an intercept's is
      narrower than one that counts chance in the number of positives. The ECE has none: it cannot fall below 0, so
      that chance raises it, to 0.03-0.05 for a perfectly calibrated model on 331 studies, and resampling adds to that
      instead of taking it away.
      "bins": at most ten with about as many studies each, at least ten where there are as many, as bins of equal width
      leave most with too few; {"low", "high", "mean_probability", "observed", "count", "interval" (Wilson)}.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    log_odds = special.logit(np.clip(score, _NEAREST, 1 - _NEAREST))
    squares, bins = (score - positive) ** 2, _bins(positive, score)
    brier = float(squares.mean())
    ece = sum(part["count"] * abs(part["mean_probability"] - part["observed"]) for part in bins) / len(score)
    figures = {
        "brier": _figure(brier, interval_methods.logit_interval(positive, squares / len(score), brier)),
        "ece": _figure(float(ece), None),
        "slope": _slope(positive, log_odds),
        "intercept": _intercept(positive, log_odds),
    }
    return {"figures": figures, "bins": bins}


def decision_curve(positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Give the net benefit of acting on a probability (Vickers & Elkin, Medical Decision Making 2006).

    At threshold t a false positive costs t / (1 - t) of what a true positive gains; per study. Treating none gives 0.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), probability of positive.

    Returns:
      "threshold": 0.01 ... 0.99; "model" and "treat_all": net benefit at each; "prevalence".
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    threshold = np.arange(1, 100) / 100
    odds = threshold / (1 - threshold)
    called = score >= threshold[:, None]
    model = (called & positive).mean(1) - odds * (called & ~positive).mean(1)
    prevalence = float(positive.mean())
    return {
        "threshold": threshold.tolist(),
        "model": model.tolist(),
        "treat_all": (prevalence - odds * (1 - prevalence)).tolist(),
        "prevalence": prevalence,
    }
