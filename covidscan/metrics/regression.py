"""Metrics of predicted numbers with their intervals, and their agreement with the reference standard."""

import numpy as np
from scipy import stats

from covidscan.metrics import jackknife
from covidscan.metrics.bootstrap import FEWEST_STUDIES
from covidscan.metrics.classification import Values
from covidscan.metrics.interval_methods import LEVEL, Z
from covidscan.metrics.results import Difference, Metric, Metrics, Regression

_SCALES = {
    "mae": jackknife.POSITIVE,
    "rmse": jackknife.POSITIVE,
    "r2": jackknife.BELOW_1,
    "pearson": jackknife.CORRELATION,
    "spearman": jackknife.CORRELATION,
}


def regression_metrics(label: np.ndarray, value: np.ndarray) -> Values:
    """Evaluate predicted numbers.

    Args:
      label: (study,).
      value: (study,), predictions.

    Returns:
      "mae", mean absolute error; "rmse", root mean squared error; "r2", coefficient of determination, below 0 where the
      mean of these labels is nearer to them; "pearson" and "spearman", correlation coefficients. None where the labels,
      or for correlations the predictions, do not differ.
    """
    found = _compute(np.asarray(label, np.float64), np.asarray(value, np.float64))
    return {name: float(one) if np.isfinite(one) else None for name, one in found.items()}


def _compute(label: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics along the last axis; NaN where not defined."""
    square = np.mean((value - label) ** 2, axis=-1)
    spread = np.where(np.ptp(label, axis=-1) > 0, np.var(label, axis=-1), np.nan)
    return {
        **_errors(label, value),
        "r2": 1 - square / spread,
        "pearson": _correlation(label, value),
        "spearman": _correlation(stats.rankdata(label, axis=-1), stats.rankdata(value, axis=-1)),
    }


def _errors(label: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "mae": np.mean(np.abs(value - label), axis=-1),
        "rmse": np.sqrt(np.mean((value - label) ** 2, axis=-1)),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    differ = (np.ptp(one, axis=-1) > 0) & (np.ptp(other, axis=-1) > 0)
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in (one, other))
    norm = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.clip(np.sum(one * other, axis=-1) / np.where(differ, norm, np.nan), -1, 1)


def evaluate_values(label: np.ndarray, value: np.ndarray, constant: float) -> Metrics:
    """Evaluate predicted numbers beside a constant, which never looks at a scan.

    Args:
      label: (study,).
      value: (study,), predictions.
      constant: the mean of the training studies' labels.

    Returns:
      The metrics of `regression_metrics`, with intervals by the jackknife, and those of the constant.
    """
    ends = jackknife.intervals(_compute, label, value, scales=_SCALES)
    baseline = regression_metrics(label, np.full(len(label), constant))
    found = {}
    for name, one in regression_metrics(label, value).items():
        interval = None if one is None else ends.get(name)
        found[name] = Metric(one, interval, interval and jackknife.METHOD, baseline[name])
    return found


def errors(label: np.ndarray, value: np.ndarray) -> Metrics:
    """Compute "mae" and "rmse" with intervals, by which baselines and subgroups are compared."""
    ends = jackknife.intervals(_errors, label, value, scales=_SCALES)
    return {
        name: Metric(float(one), ends.get(name)) if np.isfinite(one) else Metric(None)
        for name, one in _errors(label, value).items()
    }


def agreement(label: np.ndarray, value: np.ndarray, constant: float) -> Regression:
    """Compare predictions with the reference standard (Bland & Altman, Lancet 1986), and with a constant.

    Args:
      label: (study,).
      value: (study,), predictions.
      constant: the mean of the training studies' labels.
    """
    difference, studies = value - label, len(label)
    ends = jackknife.intervals(_gains, label, value, np.full(studies, constant))
    gains = {
        name: Metric(float(one), ends.get(name), ends.get(name) and jackknife.METHOD)
        for name, one in _gains(label, value, np.full(studies, constant)).items()
    }
    bias = float(difference.mean())
    if studies < FEWEST_STUDIES:
        return Regression(constant, gains, Metric(bias), None, Metric(None), Metric(None))
    deviation = float(difference.std(ddof=1))
    factor = float(stats.t.ppf((1 + LEVEL) / 2, studies - 1)) * deviation
    around_bias, around_limit = factor / studies**0.5, factor * (1 / studies + Z**2 / (2 * (studies - 1))) ** 0.5

    def metric(centre: float, reach: float) -> Metric:
        return Metric(centre, (centre - reach, centre + reach), "t")

    lower, upper = (metric(bias + sign * Z * deviation, around_limit) for sign in (-1, 1))
    return Regression(constant, gains, metric(bias, around_bias), deviation, lower, upper)


def _gains(label: np.ndarray, value: np.ndarray, constant: np.ndarray) -> dict[str, np.ndarray]:
    """Compute by how much the errors of a constant, or of another model, are larger."""
    own = _errors(label, value)
    return {name: error - own[name] for name, error in _errors(label, constant).items()}


def compare_errors(label: np.ndarray, value: np.ndarray, other: np.ndarray) -> dict[str, Difference]:
    """Compare the errors of two models on the same studies.

    Args:
      label: (study,).
      value: (study,), predictions of one.
      other: (study,), of the other.

    Returns:
      "mae" and "rmse", the first's minus the other's, by Student's test with the jackknife's error: of the mean of the
      absolute errors' differences it is the paired t-test. Ranks, as of Wilcoxon's test, would answer another question:
      a model that is a little better on most studies and far worse on a few has the larger mean error.
    """
    # Of which the gain over the other model is the other's errors minus the first's.
    return jackknife.differences(lambda label, value, other: _gains(label, other, value), label, value, other)
