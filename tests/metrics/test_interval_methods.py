"""Intervals of proportions and of their functions, compared with published ones and with each other."""

import numpy as np
import pytest
from scipy import stats

from covidscan.metrics import interval_methods


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(hits, of, low, high):
    assert interval_methods.wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_one_label_alone_keeps_its_own_interval():
    part = interval_methods.proportion(7, 9)
    assert interval_methods.weighted_sum([part], [1.0]) == pytest.approx(part[1:])
    assert interval_methods.ratio(part, (1, 1, 1)) == pytest.approx(part[1:])


def test_a_ratio_turned_round_has_the_reciprocal_interval():
    above, below = interval_methods.proportion(7, 9), interval_methods.proportion(4, 21)
    low, high = interval_methods.ratio(above, below)
    assert interval_methods.ratio(below, above) == pytest.approx((1 / high, 1 / low))
    assert low < (7 / 9) / (4 / 21) < high


def test_ratios_of_nothing_and_by_nothing_stay_defined():
    none, some = interval_methods.proportion(0, 10), interval_methods.proportion(4, 10)
    low, high = interval_methods.ratio(none, some)
    assert low == 0
    assert 0 < high < np.inf
    low, high = interval_methods.ratio(some, none)
    assert 0 < low < np.inf
    assert high == np.inf


def test_one_label_of_equal_spread_has_the_standard_error_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    error, factor = interval_methods.standard_error(np.zeros(50), values / 50)
    assert error == pytest.approx(stats.sem(values))
    # Normal values have a fourth moment of 3 and so about n degrees of freedom: a factor near Student's.
    assert factor == pytest.approx(stats.t.ppf(0.975, 49), rel=0.01)


def test_an_error_among_many_makes_the_factor_that_of_two_degrees_of_freedom():
    values = np.zeros(1000)
    values[0] = 1
    _, factor = interval_methods.standard_error(np.zeros(1000), values)
    assert factor == pytest.approx(stats.t.ppf(0.975, 2), rel=0.01)


def test_no_spread_falls_back_on_the_rarest_label():
    label = np.asarray([0] * 4 + [1] * 9)
    assert interval_methods.logit_interval(label, np.zeros(13), 1.0) == interval_methods.wilson(4, 4)
    assert interval_methods.logit_interval(label, np.zeros(13), 0.5) == interval_methods.wilson(2, 4)
    assert interval_methods.logit_interval(
        np.asarray([0, 1, 1]), np.asarray([0.0, 0.1, 0.2]), 1.0
    ) == interval_methods.wilson(1, 1)
