"""Paired tests over resamples of the studies."""

from collections.abc import Callable

import numpy as np

from covidscan.metrics.interval_methods import LEVEL, Interval
from covidscan.metrics.results import Difference

RESAMPLES = 2000
FEWEST_STUDIES = 3  # of which intervals are computed
_NUMBERS_A_CHUNK = 2**20  # of resamples that are held at a time


def paired_differences(
    compute: Callable[..., dict[str, np.ndarray]], *arrays: np.ndarray, seed: int = 0
) -> dict[str, Difference]:
    """Test whether differences of two models on the same studies are 0, by resampling the studies.

    Args:
      compute: from arrays (…, study, …) to the difference of each metric (…); those that are NaN, not defined, are
        left out.
      arrays: (study, …).
      seed: of the bootstrap.

    Returns:
      Metric -> difference, its 95 % percentile interval, and the p-value that goes with it: twice the share of
      resamples on the other side of 0, which is below 5 % where the interval does not hold 0.
    """
    resampled, found = _resample(compute, *arrays, seed=seed), {}
    for name, value in compute(*arrays).items():
        if not np.isfinite(value):
            continue
        drawn, p_value, interval = resampled.get(name), 1.0, (float(value), float(value))
        if drawn is not None:
            others = min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1  # the studies themselves are one resample more
            p_value, interval = min(1.0, 2 * float(others) / (len(drawn) + 1)), _ends(drawn)
        found[name] = Difference(float(value), interval, p_value, "bootstrap")
    return found


def _ends(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _resample(compute: Callable[..., dict[str, np.ndarray]], *arrays: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Compute metrics of resamples of the studies: metric -> (resample,), of those that are defined and vary."""
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
            found[name] = known
    return found
