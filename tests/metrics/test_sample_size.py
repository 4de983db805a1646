"""Minimum numbers of studies, and the warnings of results below them."""

import dataclasses

import pytest

from covidscan.metrics import sample_size
from covidscan.metrics.results import Calibration, Metric, OperatingPoint, Reliability
from covidscan.report import console
from tests.support.evaluations import THIRTEEN, binary, evaluated


@pytest.mark.parametrize(
    ("task", "counts", "few"),
    [
        ("binary", (2, 1), True),
        ("binary", (5, 4), True),
        ("binary", (98, 2), True),
        ("binary", (7, 3), False),
        ("severity", (5, 4, 1, 0), False),
        ("severity", (2, 20, 20, 20), True),
        ("classes", (30, 30, 2), True),
        ("classes", (0, 0, 0), True),
    ],
)
def test_few_studies(task, counts, few):
    named = {str(label): count for label, count in enumerate(counts)}
    assert sample_size.is_few(task, named, sum(counts)) is few


@pytest.mark.parametrize(("counts", "few"), [((5, 8), False), ((2, 8), True), ((5, 18), True), ((3, 4), False)])
def test_few_studies_with_or_without_a_label(counts, few):
    named = {str(label): count for label, count in enumerate(counts)}
    assert sample_size.is_few("multilabel", named, 20) is few
    assert sample_size.is_few("multilabel", named, 9)


@pytest.mark.parametrize(
    ("value", "interval", "vague"),
    [(-1185.0, (-4000.0, 1600.0), True), (-1185.0, None, True), (1.1, (0.2, 2.0), False), (None, None, False)],
)
def test_a_slope_that_says_nothing(value, interval, vague):
    one = Reliability({"slope": Metric(value, interval)}, [])
    calibration = Calibration("Is it?", Reliability({"slope": Metric(1.0, (0.5, 1.5))}, []), one)
    assert sample_size.is_vague(calibration) is vague
    point = OperatingPoint("youden", "", 0.5, 1.0, 100, 1)
    assert bool(sample_size.warnings("binary", {"a": 50, "b": 50}, point, calibration)) is vague


def test_the_warnings_are_printed_and_enough_studies_have_none():
    few = evaluated(binary((0.9, 0.8), (0.3,)))
    assert (
        "Warning, too few studies: Only 3 studies were evaluated (1 negative, 2 positive)"
        in console.evaluation_text(few)
    )
    assert evaluated(THIRTEEN).warnings == []
    point = OperatingPoint("youden", "", 0.5, 1.0, 7, 1)
    [warning] = sample_size.warnings("binary", {"a": 50, "b": 50}, point, None)
    assert "The threshold was chosen on 7 validation studies" in warning


def test_folds_whose_thresholds_were_each_chosen_on_few_studies_have_a_warning():
    point = OperatingPoint("youden", "", None, 1.0, 100, 1, num_in_smallest_fold=19)
    [warning] = sample_size.warnings("binary", {"a": 50, "b": 50}, point, None)
    assert "A fold's threshold was chosen on 19 validation studies, fewer than 20" in warning
    assert sample_size.warnings("classes", {"a": 50, "b": 50}, point, None) == []
    enough = dataclasses.replace(point, num_in_smallest_fold=20)
    assert sample_size.warnings("binary", {"a": 50, "b": 50}, enough, None) == []
