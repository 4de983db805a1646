"""Confidence band of an ROC curve."""

from typing import NamedTuple

import numpy as np

from covidscan.metrics import interval_methods

METHOD = "pointwise 95 % band of Wilson’s intervals of sensitivity and specificity (Hilgers 1991)"


class RocBand(NamedTuple):
    """Band around an ROC curve: two lines of steps from (0, 0) to (1, 1).

    Attributes:
      lower: the least sensitivity, (2, point): false positive rate, sensitivity.
      upper: the greatest, (2, point).
    """

    lower: np.ndarray
    upper: np.ndarray

    def outline(self) -> np.ndarray:
        """Return the lower line, and the upper one backwards, (2, point)."""
        return np.hstack([self.lower, self.upper[:, ::-1]])


def roc_band(false_positives: np.ndarray, true_positives: np.ndarray, num_negative: int, num_positive: int) -> RocBand:
    """Compute a pointwise 95 % confidence band of an ROC curve.

    At each threshold, sensitivity and specificity have Wilson's intervals, those of the tables. As an ROC curve rises,
    it cannot pass below the lower right corner of this rectangle, nor above the upper left one, which bounds it at
    every false positive rate (Hilgers, Methods of Information in Medicine 1991, with exact intervals; Schäfer,
    Statistics in Medicine 1994). In simulations of 33 to 800 studies the band holds the true sensitivity at a false
    positive rate in 97-100 % of draws; percentiles of resamples (Macskassy & Provost 2005) in 0-95 %, as they have no
    width where labels are separated.

    Args:
      false_positives: (threshold,), counts at falling thresholds, from 0 to `num_negative`.
      true_positives: (threshold,), from 0 to `num_positive`.
      num_negative: studies, at least 1.
      num_positive: studies, at least 1.

    Returns:
      The band of each point by itself; one that holds the whole curve with 95 % is wider.
    """
    least, most = interval_methods.wilson_ends(np.asarray(false_positives), num_negative)
    low, high = interval_methods.wilson_ends(np.asarray(true_positives), num_positive)
    # The lower line rises at the right ends, the upper one has risen before the left ends.
    lower = np.stack([np.repeat(most, 2), np.append(0, np.repeat(low, 2)[:-1])])
    upper = np.stack([np.append(0, np.repeat(least, 2)[:-1]), np.repeat(high, 2)])
    start, end = np.zeros((2, 1)), np.ones((2, 1))
    return RocBand(np.hstack([start, lower, end]), np.hstack([start, upper, end]))
