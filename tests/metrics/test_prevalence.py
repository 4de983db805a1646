"""Adaptation to another prevalence: what is adapted is calibrated there, and decisions follow the criterion."""

import numpy as np
import pytest

from covidscan.metrics import calibration, prevalence, thresholds
from covidscan.metrics.results import OperatingPoint
from tfds_mosmed.errors import UserError

HERE, THERE = 0.77, 0.1
POINT = OperatingPoint("youden", "d", 0.8, 1.0, 100, 1, 20, None, [0, 1.0], [], HERE)


def _studies(share, number, rng):
    """Labels, and probabilities that are right where the share of positives is HERE."""
    positive = rng.random(number) < share
    log_odds = 2.5 * rng.normal(np.where(positive, 1.25, -1.25)) + np.log(HERE / (1 - HERE))
    score = 1 / (1 + np.exp(-log_odds))
    return positive, np.stack([1 - score, score], axis=1)


def test_adapted_probabilities_are_calibrated_at_the_other_prevalence():
    positive, probability = _studies(THERE, 20_000, np.random.default_rng(0))
    before = calibration.reliability(positive, probability[:, 1]).metrics
    adapted = prevalence.shift(probability, HERE, THERE)
    after = calibration.reliability(positive, adapted[:, 1]).metrics
    assert before["intercept"].value < -2
    assert abs(after["intercept"].value) < 0.1
    assert after["slope"].value == pytest.approx(1, abs=0.05)
    assert after["ece"].value < 0.01
    np.testing.assert_allclose(prevalence.shift(adapted, THERE, HERE), probability, rtol=1e-9)
    np.testing.assert_allclose(prevalence.shift(probability, HERE, HERE), probability)


@pytest.mark.parametrize(("criterion", "stays"), [("youden", True), ("sensitivity", True), ("accuracy", False)])
def test_a_threshold_of_ranks_keeps_its_decisions_and_one_of_costs_its_probability(criterion, stays):
    _, probability = _studies(THERE, 500, np.random.default_rng(1))
    adapted = prevalence.shift(probability, HERE, THERE)
    threshold = prevalence.shift_threshold(criterion, 0.6, HERE, THERE)
    decisions = [thresholds.decide("binary", *pair).tolist() for pair in ((probability, 0.6), (adapted, threshold))]
    assert (decisions[0] == decisions[1]) == stays
    assert (threshold == 0.6) != stays
    each = prevalence.shift_threshold(criterion, np.asarray([0.6, 0.7]), HERE, THERE)
    assert each[0] == pytest.approx(threshold)


def test_what_was_adapted_is_told():
    point = prevalence.adapt(POINT, THERE)
    assert (point.adapted_to, point.prevalence) == (THERE, HERE)
    assert point.threshold < POINT.threshold
    assert (
        "from the prevalence of 0.77 among the validation studies to 0.1, the threshold with them" in point.description
    )


@pytest.mark.parametrize(
    ("task", "known", "words"), [("severity", 0.5, "--task=severity"), ("binary", None, "earlier")]
)
def test_what_cannot_be_adapted_is_refused(task, known, words):
    prevalence.check(task, known, None, "runs/a")
    with pytest.raises(UserError, match=f"--prevalence=0.1: .*runs/a.*{words}.*leave it out"):
        prevalence.check(task, known, 0.1, "runs/a")


def test_thresholds_of_different_criteria_are_not_adapted_together():
    prevalence.check_criteria(["youden", "youden"], 0.1)
    prevalence.check_criteria(["youden", "accuracy"], None)
    for criteria in (["youden", "accuracy"], [""]):
        with pytest.raises(UserError, match=r"--prevalence=0.1: the networks' thresholds were chosen by different"):
            prevalence.check_criteria(criteria, 0.1)
