"""Methods for 95 % intervals of metrics, of studies whose counts by reference label are fixed.

A test part is drawn with fixed counts of each label, so what is uncertain is the predictions on studies of each
label, not how many there are. Every interval is therefore about the metric *at these studies' shares of labels*.

Where patients have several studies, `cluster` (study,) numbers each study's patient, and patients are what is drawn:
studies of a patient may be alike, and as many independent studies would tell more. None: studies are independent.
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))

WILSON_OF_RAREST = "Wilson, rarest label"  # see `logit_interval`
_LEAST_ERROR = 1e-9  # sums of equal numbers differ by rounding

Interval = tuple[float, float]
Estimate = tuple[float, float, float]  # value, low, high


@functools.cache
def wilson(successes: int, total: int) -> Interval:
    """Return the Wilson score interval of a proportion (Wilson, JASA 1927).

    Args:
      successes: from 0 to `total`.
      total: at least 1.

    Returns:
      (low, high), 95 %.
    """
    found = stats.binomtest(int(successes), int(total)).proportion_ci(LEVEL, method="wilson")
    # Rounding moves an end that is 0 or 1 a little off it.
    low = 0.0 if successes == 0 else float(found.low)
    return low, 1.0 if successes == total else float(found.high)


def wilson_ends(successes: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's intervals of many proportions of the same total, see `wilson`.

    Args:
      successes: (proportion,), from 0 to `total`.
      total: at least 1.

    Returns:
      Low and high ends, (proportion,) each.
    """
    square = Z**2
    centre = (successes + square / 2) / (total + square)
    reach = np.sqrt(square * (successes * (total - successes) / total + square / 4)) / (total + square)
    return np.where(successes == 0, 0.0, centre - reach), np.where(successes == total, 1.0, centre + reach)


def wilson_of_share(share: float, total: float) -> Interval:
    """Return Wilson's interval for a share that need not be a whole number of `total` trials, nor they whole."""
    low, high = wilson_ends(np.asarray(share * total), total)
    return float(low), float(high)


def proportion(successes: int, total: int, effect: float = 1.0) -> Estimate:
    """Return a proportion with its Wilson interval, or (0, 0, 0) of no study at all; `effect` see `design_effect`."""
    if not total:
        return 0.0, 0.0, 0.0
    share = successes / total
    return share, *(wilson(successes, total) if effect == 1 else wilson_of_share(share, total / effect))


def weighted_sum(parts: Sequence[Estimate], weights: ArrayLike) -> Interval:
    """Combine independent proportions into the interval of their weighted sum.

    The distances from each estimate to its own ends are squared and added, as variances are (MOVER: Zou & Donner,
    Statistics in Medicine 2008; for two proportions Newcombe's method of 1998).

    Args:
      parts: one a label.
      weights: as many, not negative.

    Returns:
      (low, high). For a single part with weight 1 it is that part's own interval.
    """
    estimate, low, high = np.asarray(parts).T
    weight = np.asarray(weights)
    centre = weight @ estimate
    below, above = np.sqrt(weight**2 @ (estimate - low) ** 2), np.sqrt(weight**2 @ (high - estimate) ** 2)
    return max(0.0, float(centre - below)), min(1.0, float(centre + above))


def ratio(above: Estimate, below: Estimate) -> Interval:
    """Combine two independent estimates into the interval of their ratio (MOVER-R: Donner & Zou, SMMR 2012).

    Args:
      above: the numerator with its ends, none negative.
      below: the denominator, none negative; an end of 0 makes the ratio's high end infinite.

    Returns:
      (low, high).
    """
    (a, a_low, a_high), (b, b_low, b_high) = above, below
    # Written so that nothing cancels where an estimate is 0. Only rounding makes a radicand negative.
    product = a * b
    least = a_low * (2 * a - a_low)
    most = b_low * (2 * b - b_low)
    low_root = math.sqrt(max(0.0, product**2 - least * b_high * (2 * b - b_high)))
    high_root = math.sqrt(max(0.0, product**2 - most * a_high * (2 * a - a_high)))
    low = float(least / (product + low_root)) if least else 0.0
    return low, float((product + high_root) / most) if most else float("inf")


def standard_error(
    label: np.ndarray, influence: np.ndarray, cluster: np.ndarray | None = None
) -> tuple[float | None, float]:
    """Estimate the standard error of a metric when studies of each label are drawn anew.

    Args:
      label: (study,), the strata.
      influence: (study,), by how much a study moves the metric, up to a constant a label: the metric is, to first
        order, a constant plus the sum of the influences.
      cluster: (study,), patients.

    Returns:
      The standard error, None where a label has one study, or patient, only; and the factor for a 95 % interval:
      Student's t, its degrees of freedom by Satterthwaite's rule (Biometrics 1946) from the fourth moments of the
      influences.
      Where few studies make nearly all of the variance, as the few errors of a good model do, the variance itself is
      uncertain, and the normal factor's intervals cover 91-93 % only.
    """
    error, freedom = error_and_freedom(label, influence, cluster)
    return error, student_factor(freedom)


def student_factor(freedom: float) -> float:
    """Return the factor for a 95 % interval of Student's distribution with that many degrees of freedom."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2)) if freedom < np.inf else Z


def has_repeats(cluster: np.ndarray | None) -> TypeGuard[np.ndarray]:
    """Return whether a patient has several of the studies."""
    return cluster is not None and len(np.unique(cluster)) < len(cluster)


def error_and_freedom(
    label: np.ndarray, influence: np.ndarray, cluster: np.ndarray | None = None
) -> tuple[float | None, float]:
    """Estimate the standard error as `standard_error` does, and return it with its degrees of freedom.

    Of patients, the influences of each are added, whatever the labels of the studies; of the AUROC this is the method
    of Obuchowski (Biometrics 1997). The degrees of freedom are fewer than the patients.
    """
    if has_repeats(cluster):
        return _error_and_freedom_of_patients(label, influence, cluster)
    variance = uncertainty = 0.0
    for value in np.unique(label):
        members = influence[label == value]
        count = len(members)
        if count < 2:
            return None, np.inf
        square = (members - members.mean()) ** 2
        variance += count * square.sum() / (count - 1)
        uncertainty += count * square.var()
    return float(np.sqrt(variance)), float(2 * variance**2 / uncertainty) if uncertainty else np.inf


def _error_and_freedom_of_patients(
    label: np.ndarray, influence: np.ndarray, cluster: np.ndarray
) -> tuple[float | None, float]:
    index = np.unique(cluster, return_inverse=True)[1]
    total = np.zeros(index.max() + 1)
    for value in np.unique(label):
        members = label == value
        count = len(np.unique(index[members]))
        if count < 2:
            return None, np.inf
        centred = influence[members] - influence[members].mean()
        total += np.bincount(index[members], centred, len(total)) * np.sqrt(count / (count - 1))
    variance, uncertainty = (total**2).sum(), len(total) * (total**2).var()
    freedom = float(2 * variance**2 / uncertainty) if uncertainty else np.inf
    return float(np.sqrt(variance)), min(freedom, len(total) - 1.0)


def design_effect(influence: np.ndarray, cluster: np.ndarray | None, label: np.ndarray | None = None) -> float:
    """Estimate how many times the variance of a metric is that of as many independent studies.

    Args:
      influence: (study,), see `standard_error`; of a share whether a study counts.
      cluster: (study,), patients.
      label: (study,), the strata; None: one.

    Returns:
      1 or more. Where nothing varies, that of patients whose studies are all alike, the largest there can be.
    """
    if not has_repeats(cluster):
        return 1.0
    label = np.zeros(len(cluster)) if label is None else label
    independent, together = (error_and_freedom(label, influence, each)[0] for each in (None, cluster))
    if independent and together and independent > _LEAST_ERROR:
        return max(1.0, (together / independent) ** 2)
    counts = np.unique(cluster, return_counts=True)[1]
    return float((counts**2).sum() / counts.sum())


def logit_interval(
    label: np.ndarray,
    influence: np.ndarray,
    estimate: float,
    bootstrap_error: float | None = None,
    rarest: int | None = None,
    cluster: np.ndarray | None = None,
) -> Interval:
    """Return the interval of a metric between 0 and 1, symmetric in its log-odds, so that it stays between them.

    Args:
      label: (study,), the strata.
      influence: (study,), see `standard_error`.
      estimate: the metric.
      bootstrap_error: the standard error where a bootstrap of studies gave one; otherwise that of the influences is
        taken.
      rarest: studies of the rarest label, where that is not the rarest stratum.
      cluster: (study,), patients.

    Returns:
      (low, high). Where the influences do not vary, as with a perfect model or a constant score, or where a label has
      one study only, the Wilson interval of that share of the rarest label's studies, which is wide and never of width
      zero.
    """
    error, factor = standard_error(label, influence, cluster)
    if _has_no_spread(error, estimate):
        rarest = rarest or int(np.unique(label, return_counts=True)[1].min())
        effect = design_effect(np.zeros(len(label)), cluster)
        return proportion(round(estimate * rarest), rarest, effect)[1:]
    if bootstrap_error:
        error = bootstrap_error * design_effect(influence, cluster, label) ** 0.5
    centre, half = special.logit(estimate), factor * (error or 0.0) / (estimate * (1 - estimate))
    low, high = special.expit([centre - half, centre + half])
    return float(low), float(high)


def logit_method(
    label: np.ndarray, influence: np.ndarray, estimate: float, usual: str, cluster: np.ndarray | None = None
) -> str:
    """Name the method of the interval that `logit_interval` returns: `usual`, or Wilson's where nothing varies."""
    return WILSON_OF_RAREST if _has_no_spread(standard_error(label, influence, cluster)[0], estimate) else usual


def _has_no_spread(error: float | None, estimate: float) -> bool:
    return error is None or error < _LEAST_ERROR or not 1e-12 < estimate < 1 - 1e-12
