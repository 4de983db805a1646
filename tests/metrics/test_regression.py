"""Metrics of predicted numbers: exact cases, other libraries, coverage of the intervals, and files."""

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from covidscan.metrics import metrics_json, regression
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Metric, Regression

LABEL, VALUE = np.array([1.0, 2.0, 3.0, 6.0]), np.array([2.0, 2.0, 5.0, 5.0])
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda number: round(number, 3))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12)


def test_a_small_case_by_hand():
    found = regression.regression_metrics(LABEL, VALUE)
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(np.sqrt(6 / 4))
    assert found["r2"] == pytest.approx(1 - 6 / 14)
    agreement = regression.agreement(LABEL, VALUE, constant=3.0)
    assert agreement.bias.value == pytest.approx(0.5)
    deviation = np.sqrt((0.25 + 0.25 + 2.25 + 2.25) / 3)
    assert agreement.deviation == pytest.approx(deviation)
    assert agreement.upper.value == pytest.approx(0.5 + 1.959964 * deviation)
    assert agreement.gains["mae"].value == pytest.approx((2 + 1 + 0 + 3) / 4 - 1)
    assert agreement.gains["rmse"].value == pytest.approx(np.sqrt(14 / 4) - np.sqrt(6 / 4))


@hypothesis.given(PAIRS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_scikit_learn_and_scipy(pairs):
    label, value = np.array(pairs).T
    found = regression.regression_metrics(label, value)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(label, value))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(label, value))
    assert (found["r2"] is None) == (len(set(label)) == 1)
    if found["r2"] is not None:
        assert found["r2"] == pytest.approx(sk.r2_score(label, value), rel=1e-6)
    differ = len(set(label)) > 1 and len(set(value)) > 1
    assert (found["pearson"] is not None) == (found["spearman"] is not None) == differ
    if differ:
        assert found["spearman"] == pytest.approx(stats.spearmanr(label, value).statistic, abs=1e-6)
        assert found["pearson"] == pytest.approx(stats.pearsonr(label, value).statistic, abs=1e-4)


@hypothesis.given(PAIRS, st.floats(0.1, 100), NUMBERS)
@hypothesis.settings(max_examples=30, deadline=None)
def test_errors_have_the_unit_of_the_labels_and_no_origin(pairs, factor, shift):
    label, value = np.array(pairs).T
    one = regression.regression_metrics(label, value)
    other = regression.regression_metrics(label * factor + shift, value * factor + shift)
    for name in ("mae", "rmse"):
        assert other[name] == pytest.approx(one[name] * factor, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("studies", [12, 60])
def test_intervals_cover_the_truth(studies):
    """Of few studies too, where percentiles of a bootstrap cover 84 to 90 % only."""
    rng, draws = np.random.default_rng(0), 150

    def draw(count):
        label = rng.normal(20, 8, count)
        return label, 0.8 * label + 3 + rng.normal(0, 3, count)

    truth = regression.regression_metrics(*draw(200_000))
    hits = dict.fromkeys(truth, 0)
    for _ in range(draws):
        for name, metric in regression.evaluate_values(*draw(studies), 0.0).items():
            low, high = metric.interval or (-1, 1)  # of ranks that all agree there is none
            hits[name] += low <= truth[name] <= high
    assert min(hits.values()) >= 0.9 * draws, hits


def test_intervals_end_where_metrics_do():
    label = np.arange(12.0)
    found = regression.evaluate_values(label, np.roll(label, 1), 5.0)
    assert found["mae"].interval[0] > 0
    assert -1 < found["pearson"].interval[0] < found["pearson"].interval[1] < 1
    assert found["r2"].interval[1] < 1
    assert {metric.interval for metric in regression.evaluate_values(label, label, 5.0).values()} == {None}


def test_a_metric_that_one_study_decides_has_no_interval():
    """Its ends would be infinite, which no JSON holds, or millions away."""
    label = np.array([0.0] * 20 + [1, 60])
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 2, len(label))
        found = regression.evaluate_values(label, label + noise, 3.0)
        assert found["r2"].value > 0.9
        assert found["r2"].interval is found["pearson"].interval is None
        assert found["mae"].interval is not None
        json.dumps(metrics_json.dump(found), allow_nan=False)


def test_a_constant_does_not_beat_itself():
    label = np.random.default_rng(1).normal(5, 2, 40)
    gains = regression.agreement(label, np.full(40, 5.0), constant=5.0).gains
    assert [gain.value for gain in gains.values()] == [0, 0]
    metrics = regression.evaluate_values(label, np.full(40, 5.0), constant=5.0)
    assert metrics["mae"].value == metrics["mae"].baseline
    assert metrics["pearson"] == Metric(None)


def test_two_studies_have_no_interval():
    found = regression.agreement(LABEL[:2], VALUE[:2], 1.0)
    assert (found.deviation, found.upper.value) == (None, None)
    assert regression.evaluate_values(LABEL[:2], VALUE[:2], 1.0)["mae"].interval is None


def test_models_are_compared_on_the_same_studies():
    rng = np.random.default_rng(2)
    label = rng.normal(size=60)
    better, worse = (label + rng.normal(0, scale, 60) for scale in (0.5, 2.0))
    found = regression.compare_errors(label, better, worse)
    for difference in found.values():
        assert difference.difference < difference.interval[1] < 0
        assert difference.p_value <= 0.001
    for same in regression.compare_errors(label, better, better).values():
        assert (same.difference, same.p_value) == (0, 1)
    assert regression.compare_errors(label[:2], better[:2], worse[:2]) == {}
    for always in regression.compare_errors(np.zeros(4), np.full(4, 2.0), np.full(4, 3.0)).values():
        assert (always.difference, always.p_value) == (-1, 1 / 8)


def test_the_test_of_the_mean_error_is_of_the_mean():
    """Equal mean errors, of which one is a little lower on most studies and far higher on a few: no difference."""
    rng, draws, studies = np.random.default_rng(0), 200, 80
    small, large, share = 0.5, 12.0, 0.1
    mean = (1 - share) * small + share * large
    rejected = 0
    for _ in range(draws):
        sign = rng.choice([-1, 1], (2, studies))
        one = np.where(rng.random(studies) < share, large, small) * sign[0]
        other = rng.gamma(8, mean / 8, studies) * sign[1]
        rejected += regression.compare_errors(np.zeros(studies), one, other)["mae"].p_value < 0.05
    assert rejected <= 0.12 * draws


def test_predictions_read_back_to_the_same_bits():
    values = Predictions(
        ["a", "=b"], ["1.5", "2"], np.array([1.5, 2]), np.array([[0.1 + 0.2], [7.0]]), ("value",), "regression"
    )
    text = values.to_csv(None)
    assert text.splitlines()[0] == "study_id,label,prediction,category"
    again = Predictions.from_csv(text, "regression")
    assert list(again.study_id) == ["a", "=b"]
    np.testing.assert_array_equal(again.probability, values.probability)
    np.testing.assert_array_equal(again.label, values.label)


def test_agreement_reads_back():
    found = regression.agreement(LABEL, VALUE, 3.0)
    assert metrics_json.load(Regression, metrics_json.dump(found)) == found
    assert dataclasses.is_dataclass(found)
