"""Percentile intervals over resamples of the studies."""

from collections.abc import Callable, Mapping

import numpy as np

from covidscan.metrics.classification import Values
from covidscan.metrics.interval_methods import LEVEL, Interval
from covidscan.metrics.results import Metric, Metrics

RESAMPLES = 2000
FEWEST_STUDIES = 3  # of which intervals are computed
_NUMBERS_A_CHUNK = 2**20  # of resamples that are held at a time


def percentile_intervals(
    compute: Callable[..., dict[str, np.ndarray]], *arrays: np.ndarray, seed: int = 0
) -> dict[str, Interval]:
    """Compute 95 % percentile intervals over resamples of the studies (Efron & Tibshirani 1993, chapter 13).

    Args:
      compute: from arrays (resample, study, …) to metrics (resample,), NaN where not defined: these are left out.
      arrays: (study, …).
      seed: of the bootstrap.

    Returns:
      Metric -> interval; none of fewer than three studies, or of a metric that does not vary.
    """
    studies = len(arrays[0])
    if studies < FEWEST_STUDIES:
        return {}
    rng, chunk = np.random.default_rng(seed), max(1, _NUMBERS_A_CHUNK // max(array.size for array in arrays))
    drawn = []
    for start in range(0, RESAMPLES, chunk):
        rows = rng.integers(studies, size=(min(chunk, RESAMPLES - start), studies))
        drawn.append(compute(*(array[rows] for array in arrays)))
    found = {}
    for name in drawn[0]:
        values = np.concatenate([each[name] for each in drawn])
        known = values[np.isfinite(values)]
        if len(known) and known.min() < known.max():
            low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
            found[name] = float(low), float(high)
    return found


def with_intervals(values: Values, ends: Mapping[str, Interval], baseline: Values) -> Metrics:
    """Return metrics with their percentile intervals, where these are defined, beside those of a baseline."""
    found = {}
    for name, value in values.items():
        interval = None if value is None else ends.get(name)
        found[name] = Metric(value, interval, interval and "bootstrap", baseline[name])
    return found
