"""AUROC and average precision with their intervals, and DeLong's test of two models on the same studies."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from covidscan.metrics import classification, interval_methods, thresholds


class DeLong(NamedTuple):
    """An AUROC with its uncertainty; all None where only one label is present.

    Attributes:
      auroc: ties count half.
      standard_error: of the AUROC; None also where a label has one study only.
      interval: (low, high), 95 %.
    """

    auroc: float | None
    standard_error: float | None
    interval: interval_methods.Interval | None


class DeLongTest(NamedTuple):
    """The difference of two AUROCs on the same studies.

    Attributes:
      difference: the first minus the second.
      interval: (low, high), 95 %, of the difference.
      z: the difference in standard errors.
      p_value: two-sided.
    """

    difference: float
    interval: interval_methods.Interval
    z: float
    p_value: float


def auroc_influence(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute by how much each study moves the AUROC: (study,), of positive (study,) bool and score (study,).

    These are DeLong's structural components divided by the label's number of studies, computed from mid-ranks in
    O(n log n) (Sun & Xu, IEEE Signal Processing Letters 2014). Those of positives sum to the AUROC, those of negatives
    to the AUROC less 1.
    """
    influence = np.empty(len(score))
    ranks, pairs = stats.rankdata(score), positive.sum() * (~positive).sum()
    influence[positive] = (ranks[positive] - stats.rankdata(score[positive])) / pairs
    influence[~positive] = -(ranks[~positive] - stats.rankdata(score[~positive])) / pairs
    return influence


def delong(positive: np.ndarray, score: np.ndarray) -> DeLong:
    """Compute the AUROC with DeLong's standard error (Biometrics 1988) and an interval symmetric in the log-odds.

    The interval uses Student's t of `interval_methods.standard_error`, not the normal factor, which covers too little
    above an AUROC of about 0.95; where DeLong's variance is 0 it is a Wilson interval, see
    `interval_methods.logit_interval`.

    Args:
      positive: (study,), bool or 0/1.
      score: (study,), higher for positive.

    Returns:
      See `DeLong`.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    auroc = classification.binary_auroc(positive, score)
    if auroc is None:
        return DeLong(None, None, None)
    influence = auroc_influence(positive, score)
    error, _ = interval_methods.standard_error(positive, influence)
    return DeLong(auroc, error, interval_methods.logit_interval(positive, influence, auroc))


def delong_test(positive: np.ndarray, score_a: np.ndarray, score_b: np.ndarray) -> DeLongTest:
    """Test whether two models have the same AUROC, from their scores of the same studies.

    DeLong, DeLong & Clarke-Pearson, Biometrics 1988; the interval is the one that belongs to this test.

    Args:
      positive: (study,), bool or 0/1; two studies of each label at least.
      score_a: (study,), higher for positive.
      score_b: (study,), the other model's.

    Returns:
      See `DeLongTest`. Scores that rank the studies alike differ by 0, with a p-value of 1.

    Raises:
      ValueError: a label has fewer than two studies, so that no variance can be estimated.
    """
    positive = np.asarray(positive, bool)
    if min(positive.sum(), (~positive).sum()) < 2:
        raise ValueError("`positive` must hold at least two studies of each label.")
    a, b = (auroc_influence(positive, np.asarray(score, np.float64)) for score in (score_a, score_b))
    difference = float((a - b)[positive].sum())
    error, _ = interval_methods.standard_error(positive, a - b)
    if not error or error < 1e-12:
        return _without_spread(positive, score_a, score_b, difference)
    z, half = difference / error, interval_methods.Z * error
    return DeLongTest(difference, (difference - half, difference + half), z, float(2 * stats.norm.sf(abs(z))))


def _without_spread(positive: np.ndarray, a: np.ndarray, b: np.ndarray, difference: float) -> DeLongTest:
    """Compare models whose components differ by a constant, as those of a perfect and of a constant model do."""
    if abs(difference) < 1e-12:
        return DeLongTest(0.0, (0.0, 0.0), 0.0, 1.0)
    # Adding squared half-widths as if the models were independent is conservative.
    (_, _, ends_a), (_, _, ends_b) = delong(positive, a), delong(positive, b)
    assert ends_a is not None
    assert ends_b is not None
    half = float(np.hypot(ends_a[1] - ends_a[0], ends_b[1] - ends_b[0]) / 2)
    z = difference * interval_methods.Z / half
    return DeLongTest(difference, (difference - half, difference + half), z, float(2 * stats.norm.sf(abs(z))))


def macro_auroc_interval(
    task: str, label: np.ndarray, probability: np.ndarray, estimate: float
) -> interval_methods.Interval:
    """Return the interval of a task's mean AUROC: DeLong's components, added study by study over the questions.

    Args:
      task: see `thresholds.dichotomies`.
      label: (study,).
      probability: (study, label).
      estimate: of `classification.mean_auroc`.

    Returns:
      (low, high).
    """
    questions = [(yes, score) for yes, score in thresholds.dichotomies(task, label, probability) if 0 < yes.mean() < 1]
    influence = np.mean([auroc_influence(yes, score) for yes, score in questions], axis=0)
    return interval_methods.logit_interval(label, influence, estimate)


def _by_score(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count positives and negatives at each distinct score, falling; also return each study's index among these."""
    _, index = np.unique(-score, return_inverse=True)
    return np.bincount(index, positive), np.bincount(index, ~positive), index


def average_precision(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """Compute the average precision of many resamples at once.

    Args:
      yes: (…, score), positives at each distinct score, from the highest score to the lowest.
      no: (…, score), negatives.

    Returns:
      (…,), as scikit-learn defines it: the mean over positives of the precision at their score.
    """
    found = np.cumsum(yes, axis=-1)
    called = found + np.cumsum(no, axis=-1)
    return (yes * found / np.maximum(called, 1)).sum(-1) / found[..., -1]


def average_precision_influence(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Compute by how much each study moves the average precision: (study,), of `positive` and `score` (study,).

    Precision at a score depends on the numbers of positives and of negatives at or above it; a study's influence is the
    derivative by its own weight.
    """
    yes, no, index = _by_score(positive, score)
    found, false = np.cumsum(yes), np.cumsum(no)
    called = found + false
    # A study at score s counts in the precision at s and at every lower score that a positive has.
    gain = np.cumsum((yes * false / called**2)[::-1])[::-1]
    loss = np.cumsum((yes * found / called**2)[::-1])[::-1]
    return np.where(positive, (found / called + gain)[index], -loss[index]) / positive.sum()


def average_precision_interval(
    positive: np.ndarray, score: np.ndarray, estimate: float, resamples: int, seed: int
) -> interval_methods.Interval:
    """Return the interval of the average precision, at these studies' share of positives.

    It is symmetric in log-odds, with the standard error of the log-odds over resamples of the studies of each label,
    and Student's factor of `interval_methods.standard_error`. Percentiles of the resamples cover 90-93 % at 331
    studies, 76 negative: the few negatives with high scores, which decide the metric, are repeated or missing.

    Args:
      positive: (study,), bool, both labels present.
      score: (study,), higher for positive.
      estimate: scikit-learn's average precision.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      (low, high).
    """
    yes, no, _ = _by_score(positive, score)
    rng = np.random.default_rng(seed)
    # How often each distinct score is drawn when as many studies are drawn with replacement.
    drawn = (rng.multinomial(int(part.sum()), part / part.sum(), size=resamples) for part in (yes, no))
    resampled = average_precision(*drawn)
    influence = average_precision_influence(positive, score)
    imperfect = resampled[resampled < 1 - 1e-12]  # the log-odds of 1 are infinite
    rarest = int(min(yes.sum(), no.sum()))
    if len(imperfect) < 2 or rarest < 2:
        return interval_methods.logit_interval(positive, influence, estimate)
    # The variance over resamples of n studies is too small by (n - 1) / n; the rarest label contributes most.
    error = special.logit(imperfect).std() * estimate * (1 - estimate) * np.sqrt(rarest / (rarest - 1))
    return interval_methods.logit_interval(positive, influence, estimate, float(error))
