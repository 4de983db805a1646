"""Tests of models on the same studies: McNemar's, Holm's correction, the smallest difference that can be shown."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from covidscan.metrics import interval_methods, roc
from covidscan.metrics.results import SmallestDifference

_Z_POWER = float(stats.norm.ppf(0.8))  # power of 80 %
_CORRELATION = 0.5  # between two models' scores of the same studies
_DISCORDANT = 0.2  # share of studies that one model gets right and the other wrong


class McNemar(NamedTuple):
    """The difference of two accuracies on the same studies.

    Attributes:
      only_a: studies that only the first model predicts right.
      only_b: studies that only the second predicts right.
      p_value: exact, two-sided.
      difference: share right of the first minus that of the second.
      interval: (low, high), 95 %, of the difference.
    """

    only_a: int
    only_b: int
    p_value: float
    difference: float
    interval: interval_methods.Interval


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """Test whether two models have the same accuracy, from the studies on which they differ.

    The test is the exact binomial one (McNemar, Psychometrika 1947). The interval is method 10 of Newcombe, Statistics
    in Medicine 1998, 17:2635: the Wilson intervals of both shares, squared and added with their correlation.

    Args:
      right_a: (study,), whether the first model is right.
      right_b: (study,), the second.

    Returns:
      See `McNemar`.
    """
    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    both, only_a, only_b, neither = (int(np.sum(cell)) for cell in (a & b, a & ~b, ~a & b, ~a & ~b))
    total, differing = len(a), only_a + only_b
    p_value = float(stats.binomtest(only_a, differing).pvalue) if differing else 1.0
    first, second = interval_methods.proportion(both + only_a, total), interval_methods.proportion(both + only_b, total)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    excess = both * neither - only_a * only_b
    # The continuity correction keeps a positive correlation from being overestimated.
    corrected = max(excess - total / 2, 0) if excess > 0 else excess
    correlation = corrected / math.sqrt(margins) if margins else 0.0
    difference = (only_a - only_b) / total

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x + y * y - 2 * correlation * x * y))

    low = difference - reach(first[0] - first[1], second[2] - second[0])
    high = difference + reach(first[2] - first[0], second[0] - second[1])
    return McNemar(only_a, only_b, p_value, difference, (low, high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests for their number (Holm, Scandinavian Journal of Statistics 1979).

    Args:
      p_values: (test,).

    Returns:
      (test,): at most 1. Rejecting those below 5 % rejects any true hypothesis in at most 5 % of cases, however the
      tests depend on each other.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected.tolist()


def _accuracy_difference(total: int) -> float:
    """Solve Connor's formula for the difference, which is also the least share of discordant studies."""

    def excess(difference: float) -> float:
        discordant = max(_DISCORDANT, difference)
        spread = math.sqrt(max(0.0, discordant - difference**2))
        return difference * math.sqrt(total) - interval_methods.Z * math.sqrt(discordant) - _Z_POWER * spread

    if excess(1.0) <= 0:
        return 1.0
    found: Any = optimize.brentq(excess, 0.0, 1.0)
    return float(found)


def smallest_difference(
    positive: np.ndarray, score: np.ndarray, cluster: np.ndarray | None = None
) -> SmallestDifference:
    """Estimate the smallest difference that these studies can show between this model and another on the same ones.

    AUROC: two models about as good as this one, with the standard error of which this one's 95 % interval is 1.96 to
    either side on average, and estimates that correlate by 0.5, a middle value of Hanley & McNeil's table (Radiology
    1983). Accuracy: McNemar's test with 20 %
    of studies discordant, by Connor's formula (Biometrics 1987) solved for the difference.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), higher for positive.
      cluster: (study,), patients, see `interval_methods`; for the AUROC alone.

    Returns:
      See `SmallestDifference`.
    """
    positive = np.asarray(positive, bool)
    total, positives = len(positive), int(positive.sum())
    interval, least = roc.delong(positive, score, cluster).interval, None
    if interval is not None:
        error = (interval[1] - interval[0]) / (2 * interval_methods.Z)
        least = min(1.0, (interval_methods.Z + _Z_POWER) * error * math.sqrt(2 * (1 - _CORRELATION)))
    accuracy = _accuracy_difference(total)
    differences = (
        f"{accuracy:.3f} in accuracy" if least is None else f"{least:.3f} in AUROC or {accuracy:.3f} in accuracy"
    )
    described = (
        f"{total} studies ({positives} positive) show a difference between two models on the same studies, at "
        f"two-sided 5 % with a power of 80 %, from {differences} on, if the models' AUROCs correlate by {_CORRELATION} "
        f"and at most {_DISCORDANT * 100:.0f} % of studies are right by one model only: both are assumed."
    )
    return SmallestDifference(least, accuracy, described)
