"""Shortcuts: properties that differ between classes are found, and chance is not taken for one."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from tfds_mosmed.building import shortcuts
from tfds_mosmed.building.shortcuts import find_shortcuts

CLASSES = ["covid"] * 20 + ["normal"] * 30


def test_a_number_that_tells_the_classes_apart_is_found():
    rng = np.random.default_rng(1)
    gap = np.concatenate([rng.normal(5, 1, 20), rng.normal(8, 1, 30)])
    (found,) = find_shortcuts(CLASSES, {}, {"slice spacing (mm)": gap.tolist(), "slices": rng.normal(40, 4, 50)})
    assert found.name == "slice spacing (mm)"
    assert found.value == pytest.approx(1 - roc_auc_score([one == "covid" for one in CLASSES], gap))
    assert found.p_value < 0.001
    assert found.num_studies == 50
    assert found.description.startswith("covid has a median of ")
    assert str(found).endswith(f"(AUROC {found.value:.2f}, p < 0.001, 50 studies)")


def test_a_scanner_of_one_class_is_found():
    scanners = ["A"] * 18 + ["B"] * 2 + ["B"] * 30
    (found,) = find_shortcuts(CLASSES, {"scanner": scanners, "kernel": ["x", "y"] * 25}, {})
    table = np.array([[18, 2], [0, 30]])
    chi2 = stats.chi2_contingency(table, correction=False).statistic
    corrected = (chi2 / 50 - 1 / 49) / (2 - 1 / 49 - 1)
    assert found.value == pytest.approx(corrected**0.5)
    assert found.description == "“A” is that of 18 of 20 studies of covid and 0 of 30 studies of normal"


def test_one_of_three_classes_differs():
    classes = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    (found,) = find_shortcuts(classes, {}, {"slices": [40.0, 41] * 10 + [90.0, 91] * 5})
    assert found.value == 1
    assert found.description == "c has a median of 90.5, the others one of 40.5"


@pytest.mark.parametrize("sizes", [(3, 30), (4, 4)])
def test_few_studies_are_no_evidence(sizes):
    classes = ["covid"] * sizes[0] + ["normal"] * sizes[1]
    assert find_shortcuts(classes, {}, {"slices": [1.0] * sizes[0] + [2.0] * sizes[1]}) == []
    assert not shortcuts.comparable_classes(classes)


def test_what_is_unknown_is_no_difference():
    kernels = ["A", "B"] * 10 + [""] * 30
    gaps = [5.0] * 20 + [float("nan")] * 30
    assert find_shortcuts(CLASSES, {"kernel": kernels}, {"slice spacing (mm)": gaps}) == []


def test_chance_is_rarely_taken_for_a_shortcut(monkeypatch):
    """Eight properties, one with many rare values, none of which depends on the class."""
    monkeypatch.setattr(shortcuts, "MIN_AUROC", 0.5)
    monkeypatch.setattr(shortcuts, "MIN_CRAMERS_V", 0.0)
    monkeypatch.setattr(shortcuts, "PERMUTATIONS", 999)
    num_found = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        texts = {f"text {n}": rng.integers(0, 2 + 8 * n, 24).astype(str).tolist() for n in range(3)}
        numbers = {f"number {n}": rng.integers(0, 5, 24).astype(float).tolist() for n in range(3)}
        num_found += len(find_shortcuts(["a"] * 12 + ["b"] * 12, texts, numbers))
    assert num_found <= 1
