"""Classification metrics agree with counts made by hand, counted pairs and published examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidscan.metrics import classification, thresholds

# Thirteen studies, worked on paper. Called positive at 0.5: six of eight positives, two of five negatives.
POSITIVE = (0.95, 0.90, 0.80, 0.70, 0.60, 0.55, 0.40, 0.20)
NEGATIVE = (0.85, 0.60, 0.30, 0.20, 0.10)
LABEL = np.asarray([1] * 8 + [0] * 5)
SCORE = np.asarray(POSITIVE + NEGATIVE)


def _one_hot(prediction, num_labels):
    return np.eye(num_labels)[np.asarray(prediction)]


def test_thirteen_studies_by_hand():
    assert classification.binary_metrics(LABEL, SCORE) == pytest.approx(
        {
            # Pairs in the right order, ties half: 5 + 5 + 4 + 4 + 3.5 + 3 + 3 + 1.5 of 40.
            "auroc": 29 / 40,
            # Precision each time another positive is found, in falling order of score; two tie with a negative.
            "auprc": (1 + 1 + 3 / 4 + 4 / 5 + 5 / 7 + 6 / 8 + 7 / 9 + 8 / 12) / 8,
            "accuracy": 9 / 13,
            "balanced_accuracy": (6 / 8 + 3 / 5) / 2,
            "sensitivity": 6 / 8,
            "specificity": 3 / 5,
            "ppv": 6 / 8,
            "npv": 3 / 5,
            "f1": 12 / 16,
        }
    )


def test_a_study_at_the_threshold_is_positive():
    metrics = classification.binary_metrics(LABEL, SCORE, threshold=0.6)
    assert metrics["sensitivity"] == pytest.approx(5 / 8)
    assert metrics["specificity"] == pytest.approx(3 / 5)


def test_severity_by_hand():
    label = np.asarray([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3])
    prediction = [0, 0, 0, 1, 2, 1, 1, 0, 2, 2, 3, 3, 1]
    metrics = classification.severity_metrics(label, _one_hot(prediction, 4))
    assert metrics == pytest.approx(
        {
            # Of answers that are 0 or 1 the AUROC is the mean of sensitivity and specificity.
            "macro_auroc": ((7 / 8 + 3 / 5) / 2 + (3 / 4 + 7 / 9) / 2 + (1 / 2 + 10 / 11) / 2) / 3,
            "accuracy": 7 / 13,
            "balanced_accuracy": (3 / 5 + 2 / 4 + 1 / 2 + 1 / 2) / 4,
            # Squared errors: 12 observed; 384 / 13 expected from the margins (5, 4, 2, 2) and (4, 4, 3, 2).
            "quadratic_weighted_kappa": 1 - 12 * 13 / 384,
            "mean_absolute_error": 8 / 13,
        }
    )


def test_kappa_keeps_the_distance_over_a_grade_that_no_study_has():
    label, prediction = np.asarray([0, 0, 1, 1, 3, 3]), [0, 1, 1, 3, 3, 1]
    metrics = classification.severity_metrics(label, _one_hot(prediction, 4))
    # Squared errors: 9 observed; 102 / 6 expected from the margins (2, 2, 0, 2) and (1, 3, 0, 2).
    assert metrics["quadratic_weighted_kappa"] == pytest.approx(1 - 9 * 6 / 102)


def test_classes_by_hand():
    label = np.asarray([0] * 6 + [1] * 4 + [2] * 3)
    prediction = [0, 0, 0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 0]
    metrics = classification.classes_metrics(label, _one_hot(prediction, 3))
    assert metrics == pytest.approx(
        {
            "macro_auroc": ((4 / 6 + 5 / 7) / 2 + (2 / 4 + 8 / 9) / 2 + (2 / 3 + 8 / 10) / 2) / 3,
            "accuracy": 8 / 13,
            "balanced_accuracy": (4 / 6 + 2 / 4 + 2 / 3) / 3,
            "macro_f1": (8 / 12 + 4 / 7 + 4 / 7) / 3,
        }
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(studies):
    positive = [score for yes, score in studies if yes]
    negative = [score for yes, score in studies if not yes]
    found = classification.binary_auroc(np.asarray([yes for yes, _ in studies]), np.asarray([s for _, s in studies]))
    if not positive or not negative:
        assert found is None
    else:
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert found == pytest.approx(np.mean(pairs))


def test_always_positive_on_mosmeddata():
    label = np.repeat([1, 0], [856, 254])
    name, probability = classification.constant_probability("binary", label, 2)
    metrics = classification.compute_metrics("binary", label, probability)
    assert name == "always positive"
    assert metrics["accuracy"] == pytest.approx(0.771, abs=5e-4)
    assert metrics["f1"] == pytest.approx(0.871, abs=5e-4)
    assert metrics["auprc"] == pytest.approx(856 / 1110)
    assert (metrics["auroc"], metrics["balanced_accuracy"], metrics["specificity"]) == (0.5, 0.5, 0)
    assert metrics["npv"] is None


def test_the_baseline_of_several_labels_is_the_commonest():
    label = np.repeat([0, 1, 2, 3], [254, 684, 125, 47])
    _, probability = classification.constant_probability("severity", label, 4)
    metrics = classification.compute_metrics("severity", label, probability)
    assert metrics["accuracy"] == pytest.approx(684 / 1110)
    assert metrics["balanced_accuracy"] == 0.25
    assert metrics["quadratic_weighted_kappa"] == 0
    assert metrics["mean_absolute_error"] == pytest.approx((254 + 125 + 2 * 47) / 1110)
    assert metrics["macro_auroc"] == 0.5


@pytest.mark.parametrize("only", [0, 1])
def test_one_label_alone_leaves_metrics_undefined(only):
    label = np.full(7, only)
    metrics = classification.binary_metrics(label, np.linspace(0, 1, 7))
    for name in ("auroc", "auprc", "balanced_accuracy", ("sensitivity", "specificity")[only == 1]):
        assert metrics[name] is None
    assert metrics["accuracy"] == pytest.approx(4 / 7 if only else 3 / 7)
    notes = classification.undefined_notes(metrics, label, ("negative", "positive"))
    assert notes[0].startswith(f"No study is {('positive', 'negative')[only]}")
    assert "AUROC" in notes[1]


@pytest.mark.filterwarnings("error")
def test_one_class_alone_leaves_metrics_undefined():
    label, probability = np.ones(5, int), _one_hot([1, 1, 1, 1, 1], 3)
    for task in ("severity", "classes"):
        metrics = classification.compute_metrics(task, label, probability)
        assert metrics["macro_auroc"] is None
        assert metrics["balanced_accuracy"] is None
    assert classification.compute_metrics("severity", label, probability)["quadratic_weighted_kappa"] is None


def test_averages_leave_out_a_class_that_no_study_has():
    label = np.asarray([0, 0, 1, 1])
    probability = np.asarray([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]])
    metrics = classification.classes_metrics(label, probability)
    assert metrics["macro_auroc"] == 1
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert "No study is c:" in classification.undefined_notes(metrics, label, "abc")[0]


def test_severity_is_the_median_grade():
    probability = np.asarray([[0.4, 0.3, 0.2, 0.1], [0.6, 0.0, 0.0, 0.4], [0.0, 0.1, 0.3, 0.6]])
    np.testing.assert_array_equal(thresholds.decide("severity", probability), [1, 0, 3])
    np.testing.assert_array_equal(thresholds.decide("severity", probability, threshold=0.35), [1, 3, 3])


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=20),
    st.floats(0.1, 0.9),
)
def test_a_grade_above_the_first_is_a_positive_decision(weights, threshold):
    probability = np.asarray(weights) / np.sum(weights, axis=1, keepdims=True)
    _, diseased = thresholds.dichotomies("severity", np.zeros(len(weights), int), probability)[0]
    np.testing.assert_array_equal(thresholds.decide("severity", probability, threshold) > 0, diseased >= threshold)


def test_auroc_that_chooses_checkpoints_agrees_with_the_table():
    rng = np.random.default_rng(0)
    label, probability = rng.integers(0, 4, 50), rng.dirichlet(np.ones(4), 50)
    for task, name in (("severity", "macro_auroc"), ("classes", "macro_auroc")):
        assert (
            classification.mean_auroc(label, probability, task)
            == classification.compute_metrics(task, label, probability)[name]
        )
    assert classification.mean_auroc(LABEL, np.stack([1 - SCORE, SCORE], 1)) == pytest.approx(29 / 40)
    assert classification.mean_auroc(np.ones(3, int), np.full((3, 2), 0.5)) is None
    assert classification.mean_auroc(np.asarray([0, 1]), np.full((2, 2), np.nan)) is None
