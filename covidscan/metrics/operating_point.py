"""The threshold at which a probability is called positive, chosen on validation studies."""

import numpy as np

CRITERIA = ("youden", "sensitivity", "cost")


def _candidates(score: np.ndarray) -> np.ndarray:
    """Give a threshold for each way to part the scores, rising, each inside (0, 1) and as far from scores as can be."""
    known = np.unique(score)
    middle = known[:-1] / 2 + known[1:] / 2
    # Between neighbouring floats there is none: the higher one parts them as well.
    between = np.where(middle > known[:-1], middle, known[1:])
    lowest = max(known[0] / 2, np.nextafter(0, 1))  # calls every study positive, unless a score is 0
    highest = known[-1] / 2 + 0.5  # calls none positive, unless a score is 1
    found = np.concatenate([[lowest], between, [highest] if highest > known[-1] else []])
    return np.unique(found[(found > 0) & (found < 1)])


def choose_threshold(
    positive: np.ndarray, score: np.ndarray, criterion: str, *, target_sensitivity: float, cost_ratio: float
) -> float:
    """Choose an operating point; a study with `score >= threshold` is called positive.

    The threshold lies midway between two neighbouring scores (or between one and 0 or 1), because any place between
    them does the same on these studies, and the middle leaves most room on either side for others. Of thresholds that
    serve equally well the lowest is taken, because it misses fewest positives; so the choice does not depend on the
    order of the studies.

    Args:
      positive: (study,), bool or 0/1, of validation studies; never of those that the threshold is judged on.
      score: (study,), probability of positive, from 0 to 1.
      criterion: "youden": greatest sensitivity + specificity - 1 (Youden, Cancer 1950), where both matter alike
        whatever the prevalence. "sensitivity": the highest threshold that reaches `target_sensitivity`, and so the best
        specificity at it, where misses are limited by agreement. "cost": least `cost_ratio` x false negatives + false
        positives, where the harms are known and the prevalence is that of these studies.
      target_sensitivity: from 0 to 1, for "sensitivity".
      cost_ratio: how many false positives a false negative is worth, above 0, for "cost".

    Returns:
      The threshold, in (0, 1); 0.5 where only one label is present, which says nothing of the other. Where positives of
      score 0 put the target out of reach, the sensitivity comes as near as it can.

    Raises:
      ValueError: the criterion is none of `CRITERIA`.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` (={criterion!r}) must be one of {', '.join(CRITERIA)}.")
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return 0.5
    thresholds = _candidates(score)
    hits = positives - np.searchsorted(np.sort(score[positive]), thresholds)
    alarms = negatives - np.searchsorted(np.sort(score[~positive]), thresholds)
    if criterion == "youden":
        # In whole numbers, so that equals are equal.
        return float(thresholds[np.argmax(hits * negatives - alarms * positives)])
    if criterion == "cost":
        return float(thresholds[np.argmin(cost_ratio * (positives - hits) + alarms)])
    wanted = target_sensitivity * positives - 1e-9  # 0.07 x 100 is a little more than 7
    return float(thresholds[np.flatnonzero(hits >= min(wanted, hits.max()))[-1]])
