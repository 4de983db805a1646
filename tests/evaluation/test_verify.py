"""Differences that `--verify` reports."""

import pytest

from covidscan.evaluation.verify import differences

STORED = {"auroc": {"value": 0.875, "interval": [0.5, 1.0], "method": "DeLong"}, "notes": [], "threshold": None}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"auroc": {**STORED["auroc"], "value": 0.876}}, "auroc.value"),
        ({"auroc": {**STORED["auroc"], "interval": [0.5, 0.9]}}, "auroc.interval[1]"),
        ({"auroc": {**STORED["auroc"], "interval": [0.5]}}, "auroc.interval"),
        ({"auroc": {**STORED["auroc"], "method": "bootstrap"}}, "auroc.method"),
        ({"notes": ["one"]}, "notes"),
        ({"threshold": 0.0}, "threshold"),
        ({"more": 1}, "more"),
    ],
)
def test_any_difference_is_found_and_named(change, path):
    (found,) = differences(STORED, {**STORED, **change})
    assert found.startswith(f"{path}: ")
    (back,) = differences({**STORED, **change}, STORED)
    assert back.startswith(f"{path}: ")


def test_rounding_of_float32_is_no_difference():
    assert not list(differences(STORED, {**STORED, "auroc": {**STORED["auroc"], "value": 0.875 + 1e-7}}))
