"""Metrics of sets of labels: exact cases, scikit-learn, recalibration, thresholds, and files."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from covidscan.metrics import bootstrap, multilabel, recalibration, roc, thresholds
from covidscan.metrics.interval_methods import wilson
from covidscan.metrics.predictions import Predictions, join_names
from covidscan.models import heads

LABEL = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
PROBABILITY = np.array([[0.9, 0.2], [0.4, 0.3], [0.6, 0.25], [0.5, 0.8]])


def test_a_small_case_by_hand():
    decision = thresholds.decide("multilabel", PROBABILITY, np.array([[0.55, 0.5]]))
    np.testing.assert_array_equal(decision, [[1, 0], [0, 0], [1, 0], [0, 1]])
    found = multilabel.multilabel_metrics(LABEL, PROBABILITY, decision)
    assert found["macro_auroc"] == pytest.approx((1 + 0.75) / 2)
    assert found["label_accuracy"] == pytest.approx(7 / 8)
    assert found["exact_match"] == pytest.approx(3 / 4)


@hypothesis.given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
@hypothesis.settings(max_examples=40, deadline=None)
def test_aurocs_are_those_of_scikit_learn(studies, labels, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (studies, labels))
    score = rng.integers(0, 5, (studies, labels)) / 4  # with ties
    found = multilabel.multilabel_metrics(label, score, label)
    known = [k for k in range(labels) if 0 < label[:, k].sum() < studies]
    by_label = multilabel.aurocs(label, score)
    for k in range(labels):
        assert np.isfinite(by_label[k]) == (k in known)
    if known:
        each = [sk.roc_auc_score(label[:, k], score[:, k]) for k in known]
        np.testing.assert_allclose(by_label[known], each)
        assert found["macro_auroc"] == pytest.approx(np.mean(each))
    else:
        assert found["macro_auroc"] is None
    if 0 < label.sum() < label.size:
        assert found["micro_auroc"] == pytest.approx(sk.roc_auc_score(label.ravel(), score.ravel()))
    assert found["exact_match"] == 1


def test_intervals_at_perfect_separation_are_wide_and_named():
    label = np.zeros((20, 2), int)
    label[:5, 0] = label[3:15, 1] = 1
    found = multilabel.evaluate_sets(label, 0.1 + 0.8 * label, label)
    for name, trials in (("macro_auroc", 5), ("micro_auroc", 15), ("label_accuracy", 20), ("exact_match", 20)):
        assert found[name].value == 1
        assert found[name].interval == pytest.approx(wilson(trials, trials))
        assert found[name].method.startswith("Wilson")
    alone = multilabel.macro_auroc(label, 0.1 + 0.8 * label)
    assert alone.interval == found["macro_auroc"].interval, "one metric has one interval"


def test_models_that_never_err_are_compared_with_a_wide_interval():
    label = np.zeros((20, 2), int)
    label[:5, 0] = label[3:15, 1] = 1
    perfect, constant = 0.1 + 0.8 * label, np.full(label.shape, 0.5)
    other = perfect + np.linspace(0, 0.05, 20)[:, None]
    found = multilabel.compare_macro_aurocs(label, perfect, other)["macro_auroc"]
    assert found.difference == 0
    assert found.interval[0] < -0.1 < 0.1 < found.interval[1]
    assert found.p_value == 1
    found = multilabel.compare_macro_aurocs(label, perfect, constant)["macro_auroc"]
    assert found.difference == 0.5
    assert -1 <= found.interval[0] < 0.4 < 0.6 < found.interval[1] <= 1
    assert 0.001 < found.p_value < 0.2
    same = multilabel.compare_macro_aurocs(label, perfect, 2 * perfect)["macro_auroc"]
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)


def test_one_label_alone_has_its_own_interval():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, (60, 1))
    score = label + rng.normal(0, 1, label.shape)
    found = multilabel.evaluate_sets(label, score, label)["macro_auroc"]
    assert found.interval == pytest.approx(roc.delong(label[:, 0], score[:, 0]).interval, abs=0.002)
    assert found.interval == pytest.approx(multilabel.evaluate_sets(label, score, label)["micro_auroc"].interval)
    # Three copies of it know no more.
    again = multilabel.macro_auroc(*(np.repeat(each, 3, axis=1) for each in (label, score)))
    assert again.interval == pytest.approx(found.interval)


USUAL, RARE = (0.3, 0.3, 0.5), (0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    ("studies", "shift", "shares"), [(40, 2.3, USUAL), (30, 3.0, USUAL), (80, 1.0, USUAL), (20, 1.3, RARE)]
)
def test_intervals_of_averages_cover_the_truth(studies, shift, shares):
    """Also where one or two studies have a label."""
    rng, hits, draws = np.random.default_rng(0), 0, 200
    truth = stats.norm.cdf(shift / np.sqrt(2))
    for _ in range(draws):
        label = (rng.random((studies, 3)) < shares).astype(int)
        interval = multilabel.macro_auroc(label, shift * label + rng.normal(size=label.shape)).interval
        hits += interval[0] <= truth <= interval[1]
    assert hits >= 0.92 * draws


def test_the_micro_average_of_prevalence_alone_is_above_chance_and_is_the_baseline():
    rng = np.random.default_rng(0)
    label = (rng.random((80, 2)) < [0.9, 0.1]).astype(int)
    found = multilabel.evaluate_sets(label, rng.random((80, 2)), label)
    assert found["micro_auroc"].baseline > 0.85
    assert found["macro_auroc"].baseline == 0.5
    low, high = found["macro_auroc"].interval
    assert low < found["macro_auroc"].value < high


def test_recalibration_of_each_label_is_that_of_the_network():
    logits = np.array([[2.0, -1.0, 0.3], [-30.0, 0.0, 12.0]])
    own = np.asarray(heads.probabilities("multilabel", logits), np.float64)
    offsets = [0.5, -1.0, 0.0]
    got = heads.probabilities("multilabel", heads.recalibrate("multilabel", logits, 1.7, offsets))
    np.testing.assert_allclose(recalibration.recalibrate("multilabel", own, 1.7, offsets), got, rtol=1e-4)


def test_a_fit_finds_scale_and_offsets_of_the_labels():
    rng = np.random.default_rng(1)
    true = rng.normal(0, 2, (4000, 3))
    label = (rng.random(true.shape) < 1 / (1 + np.exp(-true))).astype(int)
    own = 1 / (1 + np.exp(-(true - [1.0, 0.0, -2.0]) * 2))
    temperature, offsets = recalibration.fit("multilabel", label, own)
    assert temperature == pytest.approx(2, rel=0.1)
    np.testing.assert_allclose(offsets, [1, 0, -2], atol=0.25)
    absent = label.copy()
    absent[:, 1] = 0
    assert recalibration.fit("multilabel", absent, own)[1] == [0, 0, 0]


def test_predictions_read_back_with_the_empty_set():
    names = ("=a", "b")
    values = Predictions(["x", "y", "z", "w"], [""] * 4, LABEL, PROBABILITY, names, "multilabel")
    at = np.array([[0.55, 0.5]])
    text = values.to_csv(at)
    assert [line.split(",")[1] for line in text.splitlines()[2:]] == ["none", "'=a|b", "b"]
    again = Predictions.from_csv(text, "multilabel")
    np.testing.assert_array_equal(again.label, LABEL)
    np.testing.assert_array_equal(again.probability, PROBABILITY)
    np.testing.assert_array_equal(again.read_decisions(text), thresholds.decide("multilabel", PROBABILITY, at))
    assert join_names(names, np.array([0, 0])) == "none"


def test_the_p_value_of_a_paired_difference_fits_its_interval(monkeypatch):
    """Of two equal models about 5 % of the samples show a difference: exactly those whose interval lacks 0."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    rng, significant = np.random.default_rng(0), 0
    for _ in range(60):
        label = rng.integers(0, 2, (30, 2))
        one, other = (0.3 * label + rng.normal(0, 0.3, label.shape) for _ in range(2))
        (found,) = multilabel.compare_macro_aurocs(label, one, other).values()
        assert (found.p_value <= 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
        significant += found.p_value <= 0.05
    assert significant <= 8
    assert multilabel.compare_macro_aurocs(np.ones((9, 2), int), one[:9], other[:9]) == {}
