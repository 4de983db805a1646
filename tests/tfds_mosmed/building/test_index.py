"""Folds of the studies."""

import numpy as np

from tfds_mosmed.building.index import assign_folds


def test_folds_are_stratified_and_do_not_depend_on_order():
    ids = [f"s{number}" for number in range(103)]
    categories = ["a"] * 61 + ["b"] * 40 + ["c"] * 2
    folds = assign_folds(ids, categories)
    assert folds == assign_folds(ids[::-1], categories[::-1])
    for category in "abc":
        counts = np.bincount([folds[i] for i, c in zip(ids, categories, strict=True) if c == category], minlength=10)
        assert counts.max() - counts.min() <= 1
    counts = np.bincount(list(folds.values()))
    assert counts.max() - counts.min() <= 1
