"""Intervals and paired tests of metrics of all studies, from the metrics without each of these in turn."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

from covidscan.metrics.bootstrap import FEWEST_STUDIES
from covidscan.metrics.interval_methods import Interval, error_and_freedom, student_factor
from covidscan.metrics.results import Difference

METHOD = "jackknife"
_NUMBERS_AT_ONCE = 2**20
_NO_SPREAD = 1e-12  # rounding of sums of equal numbers, as a share of the metric

Compute = Callable[..., dict[str, np.ndarray]]  # from arrays (…, study) to metrics (…), NaN where not defined


class Scale(NamedTuple):
    """Scale on which an interval is symmetric, so that its ends stay where the metric can be."""

    forward: Callable[[float], float]
    slope: Callable[[float], float]
    back: Callable[[float], float]
    longest: float = np.inf  # half width, beyond which an interval excludes hardly anything


_LONGEST = float(np.log(100))  # in logarithms: one study decides a metric whose ends are a factor of 100 away
PLAIN = Scale(lambda value: value, lambda _: 1.0, lambda value: value)
POSITIVE = Scale(np.log, lambda value: 1 / value, np.exp, _LONGEST)
BELOW_1 = Scale(
    lambda value: np.log(1 - value), lambda value: -1 / (1 - value), lambda value: 1 - np.exp(value), _LONGEST
)
CORRELATION = Scale(np.arctanh, lambda value: 1 / (1 - value**2), np.tanh, _LONGEST)  # Fisher's z


def intervals(compute: Compute, *arrays: np.ndarray, scales: Mapping[str, Scale] | None = None) -> dict[str, Interval]:
    """Compute 95 % intervals: Student's, with the jackknife's standard error (Efron & Tibshirani 1993, chapter 11).

    In simulations of 10 to 60 studies with normal errors they cover 92 to 97 %, percentiles of a bootstrap 84 to 93 %.

    Args:
      compute: see `Compute`.
      arrays: (study,).
      scales: of each metric; others are plain.

    Returns:
      Metric -> interval; none of fewer than three studies, at an end of its scale, where it is not defined without
      a study or does not vary, or where so few studies decide it that the interval excludes hardly anything.
    """
    found = {}
    for name, (value, error, freedom) in _spread(compute, *arrays).items():
        scale = (scales or {}).get(name, PLAIN)
        with np.errstate(divide="ignore", invalid="ignore"):
            centre, reach = scale.forward(value), student_factor(freedom) * error * abs(scale.slope(value))
        if error > _NO_SPREAD * abs(value) and np.isfinite([centre, reach]).all() and reach <= scale.longest:
            low, high = sorted((float(scale.back(centre - reach)), float(scale.back(centre + reach))))
            found[name] = low, high
    return found


def differences(compute: Compute, *arrays: np.ndarray) -> dict[str, Difference]:
    """Test whether differences of two models on the same studies are 0, by Student's test that goes with `intervals`.

    Args:
      compute: see `Compute`; of differences.
      arrays: (study,).

    Returns:
      Metric -> difference; none of fewer than three studies. Of one that no study changes, the p-value is that of as
      many equal signs.
    """
    found = {}
    for name, (value, error, freedom) in _spread(compute, *arrays).items():
        reach = student_factor(freedom) * error
        p_value = float(2 * special.stdtr(freedom, -abs(value) / error)) if error > _NO_SPREAD * abs(value) else None
        if p_value is None:
            p_value = 1.0 if value == 0 else 2.0 ** (1 - len(arrays[0]))
        found[name] = Difference(float(value), (float(value - reach), float(value + reach)), p_value, METHOD)
    return found


def _spread(compute: Compute, *arrays: np.ndarray) -> dict[str, tuple[np.float64, float, float]]:
    """Return value, standard error and degrees of freedom of each metric that is defined without any one study."""
    studies = len(arrays[0])
    if studies < FEWEST_STUDIES:
        return {}
    others, chunk = np.arange(studies - 1), max(1, _NUMBERS_AT_ONCE // studies)
    without: dict[str, list[np.ndarray]] = {}
    for start in range(0, studies, chunk):
        left_out = np.arange(start, min(start + chunk, studies))[:, None]
        for name, values in compute(*(array[others + (others >= left_out)] for array in arrays)).items():
            without.setdefault(name, []).append(values)
    found = {}
    for name, value in compute(*arrays).items():
        influence = -(studies - 1) / studies * np.concatenate(without[name])
        if np.isfinite(influence).all() and np.isfinite(value):
            error, freedom = error_and_freedom(np.zeros(studies), influence)
            found[name] = np.float64(value), float(error or 0.0), min(freedom, studies - 1.0)
    return found
