"""The confidence band of an ROC curve: its corners are the reported intervals, and it covers."""

import numpy as np
import pytest
from scipy import stats

from covidscan.metrics import interval_methods
from covidscan.metrics.roc_band import roc_band


def _counts(negative, positive):
    """False and true positives at falling thresholds."""
    falling = -np.sort(-np.concatenate([[np.inf], negative, positive]))
    return [(scores[:, None] >= falling).sum(0) for scores in (negative, positive)]


def _at(band, rate):
    """The least and the greatest sensitivity at a false positive rate."""
    lower = band.lower[1, np.searchsorted(band.lower[0], rate, side="right") - 1]
    on_the_left = np.searchsorted(band.upper[0], 0, side="right") - 1  # the last point of a rate of 0
    return lower, band.upper[1, np.maximum(np.searchsorted(band.upper[0], rate), on_the_left)]


@pytest.mark.parametrize("total", [1, 7, 60])
def test_many_wilson_intervals_are_those_of_one(total):
    low, high = interval_methods.wilson_ends(np.arange(total + 1), total)
    each = [interval_methods.wilson(count, total) for count in range(total + 1)]
    np.testing.assert_allclose(np.stack([low, high], 1), each, atol=1e-12)


def test_its_corners_are_the_intervals_of_sensitivity_and_specificity():
    rng = np.random.default_rng(0)
    fp, tp = _counts(rng.normal(0, 1, 20).round(1), rng.normal(1.5, 1, 30).round(1))  # with ties
    band = roc_band(fp, tp, 20, 30)
    for false, true in zip(fp, tp, strict=True):
        least, most = interval_methods.wilson(false, 20)
        low, high = interval_methods.wilson(true, 30)
        assert np.isclose(band.lower, [[most], [low]]).all(0).any()
        assert np.isclose(band.upper, [[least], [high]]).all(0).any()
        below, above = _at(band, false / 20)
        assert below <= true / 30 <= above
    for line in band:
        assert (np.diff(line) >= 0).all()
        assert ((np.diff(line) > 0).sum(0) <= 1).all()  # steps, and no slopes
        assert line[:, 0].tolist() == [0, 0]
        assert line[:, -1].tolist() == [1, 1]


def test_perfect_separation_has_a_band_as_wide_as_the_interval_of_no_error():
    band = roc_band(*_counts(np.zeros(20), np.ones(20)), 20, 20)
    assert _at(band, 0.5) == pytest.approx((interval_methods.wilson(20, 20)[0], 1))
    assert _at(band, 0.1)[0] == 0  # within the interval of the specificity


@pytest.mark.parametrize("distance", [0.0, 1.5, 2.8])
def test_it_covers_at_each_false_positive_rate(distance):
    rng, rates = np.random.default_rng(1), np.array([0.02, 0.1, 0.3, 0.7])
    true = stats.norm.sf(stats.norm.isf(rates) - distance)
    held = np.zeros(len(rates))
    for _ in range(400):
        band = roc_band(*_counts(rng.normal(0, 1, 76), rng.normal(distance, 1, 120)), 76, 120)
        low, high = _at(band, rates)
        held += (low <= true) & (true <= high)
    assert (held / 400 > 0.95).all()
