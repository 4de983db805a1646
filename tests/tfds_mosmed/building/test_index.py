"""Folds of the studies, and their warnings by kind."""

import numpy as np

from tfds_mosmed.building.index import assign_folds, group_warnings


def test_folds_are_stratified_and_do_not_depend_on_order():
    ids = [f"s{number}" for number in range(103)]
    categories = ["a"] * 61 + ["b"] * 40 + ["c"] * 2
    folds = assign_folds(ids, categories, [""] * len(ids))
    assert folds == assign_folds(ids[::-1], categories[::-1], [""] * len(ids))
    for category in "abc":
        counts = np.bincount([folds[i] for i, c in zip(ids, categories, strict=True) if c == category], minlength=10)
        assert counts.max() - counts.min() <= 1
    counts = np.bincount(list(folds.values()))
    assert counts.max() - counts.min() <= 1


def test_warnings_that_differ_in_numbers_are_one_kind():
    warnings = {
        "c": ["29 duplicate slices: each position was used once"],
        "a": ["no lungs were found", "4 duplicate slices: each position was used once"],
        "b": ["4 duplicate slices: each position was used once"],
        **{f"d{number}": ["no lungs were found"] for number in range(3)},
    }
    assert list(map(str, group_warnings(warnings))) == [
        "4 studies (a, d0, d1 and 1 more): no lungs were found",
        "3 studies (a, b, c): 4 duplicate slices: each position was used once, in the first",
    ]
    assert str(group_warnings({"a": ["oblique by 12.5 degrees"]})[0]) == "1 study (a): oblique by 12.5 degrees"
