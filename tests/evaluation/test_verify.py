"""What `--verify` counts as a difference."""

import pytest

from covidscan.evaluation.verify import differences

STORED = {"auroc": {"value": 0.875, "interval": [0.5, 1.0], "method": "DeLong"}, "notes": [], "threshold": None}


@pytest.mark.parametrize(
    ("change", "place"),
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
def test_any_difference_is_found_and_named(change, place):
    (found,) = differences(STORED, {**STORED, **change})
    assert found.startswith(f"{place}: ")
    (back,) = differences({**STORED, **change}, STORED)
    assert back.startswith(f"{place}: ")


def test_rounding_of_float32_is_none():
    assert not list(differences(STORED, {**STORED, "auroc": {**STORED["auroc"], "value": 0.875 + 1e-7}}))
