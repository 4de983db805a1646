"""Recalibration restores the prevalence that balanced sampling hides; planted scales and offsets are found."""

import numpy as np
import pytest
from scipy import special

from covidscan.config import Config
from covidscan.metrics import calibration, recalibration
from covidscan.models import heads
from covidscan.runs import operating_points
from tests.support import evaluations

OFFSETS = {"binary": [0, -1.5], "classes": [0, 1.0, -1.0, 0.5], "severity": [-0.6, 0.2, 1.0]}


def _draw(task, studies, seed=0):
    """Calibrated probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probability = special.softmax(1.5 * rng.normal(size=(studies, 2 if task == "binary" else 4)), axis=1)
    return (rng.random(studies)[:, None] > probability.cumsum(1)).sum(1), probability


@pytest.mark.parametrize("task", OFFSETS)
def test_a_planted_scale_and_offsets_are_found_and_undone(task):
    label, calibrated = _draw(task, 8000)
    # The inverse of x -> 2 x + offset is x -> x / 2 - offset / 2.
    spoilt = recalibration.recalibrate(task, calibrated, 2, [-offset / 2 for offset in OFFSETS[task]])
    temperature, offsets = recalibration.fit(task, label, spoilt)
    assert temperature == pytest.approx(0.5, rel=0.1)
    assert offsets == pytest.approx(OFFSETS[task], abs=0.15)
    undone = recalibration.recalibrate(task, spoilt, temperature, offsets)
    np.testing.assert_allclose(undone, calibrated, atol=0.06)
    exact = recalibration.recalibrate(task, spoilt, 0.5, OFFSETS[task])
    np.testing.assert_allclose(exact, calibrated, atol=1e-9)


def test_offsets_of_grades_never_make_a_probability_negative():
    _, probability = _draw("severity", 200)
    changed = recalibration.recalibrate("severity", probability, 0.7, [-3, 0, 3])
    assert (changed >= 0).all()
    np.testing.assert_allclose(changed.sum(1), 1)
    above = changed[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    assert (np.diff(above, axis=1) <= 1e-12).all()
    assert np.mean(above[:, 1] == above[:, 2]) > 0.3  # the offsets alone would raise the last above the one before it


@pytest.mark.parametrize("task", OFFSETS)
def test_networks_recalibrate_as_the_metrics_do(task):
    offsets = OFFSETS[task][::-1]  # falling, of grades: the order of logits that cross matters
    logits = np.random.default_rng(0).normal(size=(50, len(offsets)), scale=2).astype(np.float32)
    own = np.asarray(heads.probabilities(task, logits))
    got = heads.probabilities(task, heads.recalibrate(task, logits, 1.7, offsets))
    np.testing.assert_allclose(got, recalibration.recalibrate(task, own, 1.7, offsets), atol=2e-6)
    np.testing.assert_allclose(heads.recalibrate(task, logits, 1.7), logits / 1.7, rtol=1e-6)


def test_an_absent_label_leaves_a_temperature_alone():
    label, probability = _draw("classes", 500)
    seen = label < 3
    temperature, offsets = recalibration.fit("classes", label[seen], probability[seen])
    assert offsets == [0] * 4
    assert temperature == recalibration.fit_temperature("classes", label[seen], probability[seen])


def test_an_absent_grade_leaves_each_question_its_offset():
    label, probability = _draw("severity", 2000)
    seen = label != 1
    _, offsets = recalibration.fit("severity", label[seen], probability[seen])
    assert min(abs(offset) for offset in offsets) > 0.1
    assert recalibration.fit("severity", label[label > 0], probability[label > 0])[1] == [0] * 3  # one answer alone


def _balanced_network(studies, rng, prevalence=0.77, separation=2.48, overconfidence=1.4):
    """Labels at a prevalence, and scores of a network that balanced sampling has taught a prevalence of one half."""
    positive = rng.random(studies) < prevalence
    evidence = rng.normal(np.where(positive, separation / 2, -separation / 2))
    score = special.expit(overconfidence * separation * evidence)
    return positive, score


def _binary(positive, score):
    return evaluations.binary(score[positive], score[~positive])


def _measures(config, validation, tested):
    point = operating_points.choose(config, _binary(*validation), 1)
    after = _binary(*tested).calibrated(point)
    positive, score = after.label == 1, after.probability[:, 1]
    found = calibration.reliability(positive, score).metrics
    order = np.argsort(-score)
    right = np.cumsum(np.where(positive[order], 1, -1)) + (~positive).sum()
    return (
        found["ece"].value,
        found["intercept"].value,
        right.max() / len(score) - np.mean((score >= point.threshold) == positive),
    )


def test_the_prevalence_is_restored_and_the_accuracy_is_near_the_best():
    rng = np.random.default_rng(0)
    tested = _balanced_network(20_000, rng)
    before = calibration.reliability(*tested).metrics
    assert before["ece"].value > 0.05
    assert before["intercept"].value > 0.8
    config = Config(operating_point="accuracy")
    ece, intercept, lost = _measures(config, _balanced_network(4000, rng), tested)
    assert ece <= 0.03
    assert abs(intercept) <= 0.2
    assert lost <= 0.01
    # Of 111 validation studies, as in MosMedData's split, chance is larger: in the mean over many.
    several = np.mean([_measures(config, _balanced_network(111, rng), tested) for _ in range(40)], axis=0)
    assert several[0] <= 0.03
    assert abs(several[1]) <= 0.2
    assert several[2] <= 0.01
