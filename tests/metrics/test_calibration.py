"""Planted temperatures are found; calibration agrees with other fits and with values worked by hand."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.metrics import brier_score_loss

from covidscan.metrics import calibration, classification, interval_methods, recalibration, thresholds
from covidscan.metrics.results import Metric, ReliabilityBin

TASKS = ["binary", "severity", "classes"]


def _draw(task, studies, seed=0):
    """Calibrated probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    labels = 2 if task == "binary" else 4
    probability = special.softmax(1.5 * rng.normal(size=(studies, labels)), axis=1)
    return (rng.random(studies)[:, None] > probability.cumsum(1)).sum(1), probability


def _likelihood(task, label, probability):
    if task == "severity":
        above = probability[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
        truth = label[:, None] > np.arange(above.shape[1])
        return np.log(np.where(truth, above, 1 - above)).sum(1).mean()
    return np.log(probability[np.arange(len(label)), label]).mean()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
def test_a_planted_temperature_is_found_and_undone(task, planted):
    label, calibrated = _draw(task, 6000)
    spoilt = recalibration.recalibrate(task, calibrated, 1 / planted)
    found = recalibration.fit_temperature(task, label, spoilt)
    assert found == pytest.approx(planted, rel=0.07)
    best = _likelihood(task, label, recalibration.recalibrate(task, spoilt, found))
    assert all(
        best >= _likelihood(task, label, recalibration.recalibrate(task, spoilt, found * f)) for f in (0.97, 1.03)
    )
    np.testing.assert_allclose(recalibration.recalibrate(task, spoilt, planted), calibrated, atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0.3, 10))
def test_temperature_scaling_keeps_the_order(task, seed, temperature):
    label, probability = _draw(task, 30, seed)
    tempered = recalibration.recalibrate(task, probability, temperature)
    assert tempered.dtype == np.float64
    assert (tempered >= 0).all()
    np.testing.assert_allclose(tempered.sum(1), 1)
    np.testing.assert_array_equal(recalibration.recalibrate(task, probability, 1), probability)
    np.testing.assert_allclose(recalibration.recalibrate(task, probability, 1 + 1e-12), probability, atol=1e-9)
    if task != "severity":
        np.testing.assert_array_equal(tempered.argmax(1), probability.argmax(1))
    if task != "classes":
        first = [classification.binary_auroc(*q) for q in thresholds.dichotomies(task, label, probability)]
        assert [classification.binary_auroc(*q) for q in thresholds.dichotomies(task, label, tempered)] == first
        np.testing.assert_array_equal(thresholds.decide(task, probability), thresholds.decide(task, tempered))


def test_severity_is_scaled_in_its_log_odds():
    probability = np.asarray([[0.4, 0.3, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])
    above = special.expit(special.logit(probability[0, ::-1].cumsum()[::-1][1:]) / 2)
    np.testing.assert_allclose(recalibration.recalibrate("severity", probability, 2)[0], -np.diff([1, *above, 0]))
    assert np.isfinite(recalibration.recalibrate("severity", probability, 0.05)).all()


def test_small_probabilities_are_not_lost():
    tiny = np.asarray([[1 - 1e-30, 1e-30], [1.0, 0.0]])
    assert recalibration.recalibrate("binary", tiny, 2)[0, 1] == pytest.approx(1e-15, rel=1e-9)
    assert np.isfinite(recalibration.recalibrate("binary", tiny, 3)).all()
    grades = np.asarray([[1.0, 1e-40, 1e-50]])
    assert recalibration.recalibrate("severity", grades, 2)[0, 2] == pytest.approx(1e-25, rel=1e-6)


def test_the_temperature_is_bounded():
    faultless = np.asarray([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    found = recalibration.fit_temperature("binary", np.asarray([0, 0, 1]), faultless)
    assert found == pytest.approx(recalibration.MIN_TEMPERATURE, rel=1e-3)
    assert recalibration.fit_temperature("binary", np.asarray([1, 1, 0]), faultless) == pytest.approx(20, rel=1e-3)
    assert recalibration.fit_temperature("binary", np.asarray([1, 1, 1]), faultless) == 1
    assert recalibration.fit_temperature("classes", np.asarray([0, 1, 0]), np.full((3, 2), 0.5)) == 1
    assert np.isfinite(recalibration.fit_temperature("binary", np.asarray([0, 1, 1]), np.eye(2)[[0, 1, 0]]))


def test_the_question_of_each_task():
    probability = np.asarray([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    yes, score, question = calibration.binarize("severity", np.asarray([0, 1]), probability)
    assert (yes.tolist(), score.tolist()) == ([False, True], [0.5, 0.9])
    assert "first grade" in question
    yes, score, _ = calibration.binarize("classes", np.asarray([0, 1]), probability)
    assert (yes.tolist(), score.tolist()) == ([True, False], [0.5, 0.6])
    yes, score, _ = calibration.binarize("binary", np.asarray([0, 1]), probability[:, :2])
    assert (yes.tolist(), score.tolist()) == ([False, True], [0.3, 0.3])


def test_twenty_studies_by_hand():
    # Two bins of ten: four of ten positive at a mean of 0.2, seven of ten at a mean of 0.8.
    positive = np.asarray([1] * 4 + [0] * 6 + [1] * 7 + [0] * 3)
    score = np.asarray([0.1, 0.3] * 5 + [0.7, 0.9] * 5)
    found = calibration.reliability(positive, score)
    assert found.bins == [
        ReliabilityBin(
            low=0.1,
            high=0.3,
            mean_probability=pytest.approx(0.2),
            observed=0.4,
            count=10,
            interval=interval_methods.wilson(4, 10),
        ),
        ReliabilityBin(
            low=0.7,
            high=0.9,
            mean_probability=pytest.approx(0.8),
            observed=0.7,
            count=10,
            interval=interval_methods.wilson(7, 10),
        ),
    ]
    assert found.metrics["ece"] == Metric(pytest.approx((0.2 + 0.1) / 2))
    assert found.metrics["brier"].value == pytest.approx(brier_score_loss(positive, score))


def test_slope_and_intercept_are_the_likeliest():
    rng = np.random.default_rng(1)
    positive, score = rng.random(200) < 0.6, rng.random(200)
    found = calibration.reliability(positive, score).metrics
    log_odds = special.logit(score)

    def loss(values):
        return -special.log_expit(np.where(positive, 1, -1) * (values[0] + values[1] * log_odds)).sum()

    fit = optimize.minimize(loss, [0.0, 0.0], tol=1e-10)
    assert found["slope"].value == pytest.approx(fit.x[1], abs=1e-5)
    large = optimize.minimize_scalar(lambda shift: loss([shift, 1]))
    assert found["intercept"].value == pytest.approx(large.x, abs=1e-5)
    for name in ("slope", "intercept", "brier"):
        low, high = found[name].interval
        assert low < found[name].value < high


def test_an_uncalibrated_model_is_recognised():
    label, calibrated = _draw("binary", 2000)
    for temperature, sign in ((0.4, -1), (2.5, 1)):
        spoilt = recalibration.recalibrate("binary", calibrated, temperature)[:, 1]
        before = calibration.reliability(label == 1, spoilt).metrics
        after = calibration.reliability(label == 1, calibrated[:, 1]).metrics
        low, high = before["slope"].interval
        assert (low > 1) if sign > 0 else (high < 1)
        assert after["slope"].interval[0] < 1 < after["slope"].interval[1]
        assert before["ece"].value > 3 * after["ece"].value
        assert before["brier"].value > after["brier"].value
    shifted = special.expit(special.logit(calibrated[:, 1]) + 0.5)
    low, high = calibration.reliability(label == 1, shifted).metrics["intercept"].interval
    assert low < -0.5 < high < 0


def test_undefined_metrics_are_none_without_a_warning():
    one, parted = np.ones(12), np.arange(12) >= 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = calibration.reliability(one, np.linspace(0, 1, 12))
        separable = calibration.reliability(parted, np.linspace(0, 1, 12)).metrics
        constant = calibration.reliability(parted, np.full(12, 0.5))
        calibration.reliability(np.asarray([True]), np.asarray([0.3]))
    none = Metric(None)
    assert alone.metrics["slope"] == alone.metrics["intercept"] == none
    assert alone.metrics["brier"].value > 0
    assert separable["slope"] == constant.metrics["slope"] == none
    assert constant.metrics["intercept"].value == pytest.approx(0)
    assert [part.count for part in constant.bins] == [12]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=150))
def test_bins_hold_every_study_once(rows):
    positive, score = np.asarray([row[0] for row in rows]), np.asarray([row[1] / 8 for row in rows])
    bins = calibration.reliability(positive, score).bins
    assert sum(part.count for part in bins) == len(rows)
    assert len(bins) <= 10
    assert all(a.high < b.low for a, b in itertools.pairwise(bins))  # equal scores together
    observed = sum(part.count * part.observed for part in bins)
    assert observed == pytest.approx(positive.sum())


def test_net_benefit_by_hand():
    positive, score = np.asarray([1, 1, 1, 0, 0]), np.asarray([0.9, 0.6, 0.2, 0.5, 0.1])
    found = calibration.decision_curve(positive, score)
    assert (found.threshold[0], found.threshold[-1], len(found.threshold)) == (0.01, 0.99, 99)
    assert found.prevalence == pytest.approx(0.6)
    # At 0.2: three true and one false positive of five, a false one at a quarter.
    assert found.model[19] == pytest.approx(3 / 5 - 1 / 5 / 4)
    assert found.treat_all[19] == pytest.approx(3 / 5 - 2 / 5 / 4)
    assert found.model[98] == 0


def test_intervals_of_whether_the_likeliest_label_is_right_cover():
    rng = np.random.default_rng(1)
    probability = rng.dirichlet([0.6] * 3, 100_000)  # calibrated: each label is drawn by its probability
    label = (probability.cumsum(1) > rng.random((len(probability), 1))).argmax(1)
    right, score, _ = calibration.binarize("classes", label, probability)
    of_label = [np.flatnonzero(label == k) for k in range(3)]
    truth, covered = {"brier": np.mean((score - right) ** 2), "intercept": 0.0}, {"brier": 0, "intercept": 0}
    for _ in range(150):
        drawn = np.concatenate([rng.choice(members, 20, replace=False) for members in of_label])
        found = calibration.reliability(right[drawn], score[drawn], label[drawn]).metrics
        for name, value in truth.items():
            low, high = found[name].interval
            covered[name] += low <= value <= high
    # With the counts of right and wrong taken as fixed: 84 % and 58 %.
    assert min(covered.values()) > 0.9 * 150
