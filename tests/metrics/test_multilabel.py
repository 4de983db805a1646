"""Metrics of sets of labels: exact cases, scikit-learn, recalibration, thresholds, and files."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from covidscan.metrics import bootstrap, multilabel, recalibration, thresholds
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


def test_the_micro_average_of_prevalence_alone_is_above_chance_and_is_the_baseline(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 100)
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
