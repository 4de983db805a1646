"""Labels of the tasks, and the strata of their splits."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covidscan.data import labels
from tfds_mosmed.errors import UserError

CATEGORIES = ["CT-0", "CT-1", "CT-4", "CT-3", "CT-2"]


def test_binary_is_ct0_against_the_rest():
    found = labels.assign_labels("binary", CATEGORIES, ["CT-0", "normal"])
    np.testing.assert_array_equal(found.values, [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(labels.assign_labels("binary", ["Normal", "cap"], ["normal"]).values, [0, 1])


def test_severity_joins_ct3_and_ct4():
    found = labels.assign_labels("severity", CATEGORIES, [])
    np.testing.assert_array_equal(found.values, [0, 1, 3, 3, 2])
    assert found.names == ("CT-0", "CT-1", "CT-2", "CT-3+4")


def test_classes_keep_the_order_that_the_model_was_trained_with():
    assert labels.assign_labels("classes", ["covid", "cap"], []).names == ("cap", "covid")
    found = labels.assign_labels("classes", ["covid", "cap"], [], names=("covid", "normal", "cap"))
    np.testing.assert_array_equal(found.values, [0, 2])


@pytest.mark.parametrize(
    ("task", "categories", "negative", "names", "message"),
    [
        ("binary", ["covid", "cap"], ["CT-0"], None, "--negative_categories=CT-0 makes every study positive"),
        ("binary", ["CT-0"], ["CT-0"], None, "makes every study negative"),
        ("severity", ["CT-0", "covid"], [], None, "the data set has covid"),
        ("classes", ["covid", "flu"], [], ("covid", "cap"), "the data set has flu"),
    ],
)
def test_categories_that_do_not_fit_raise_one_line(task, categories, negative, names, message):
    with pytest.raises(UserError, match=message) as error:
        labels.assign_labels(task, categories, negative, names)
    assert "\n" not in str(error.value)


def test_regression_takes_numbers_and_names_what_is_none():
    found = labels.assign_labels("regression", ["1.5", "-2", "1e3"], ["CT-0"])
    np.testing.assert_array_equal(found.values, [1.5, -2, 1000])
    assert found.is_number
    for category in ("covid", "nan", "inf", ""):
        with pytest.raises(UserError, match=r"--task=regression needs numbers as labels, the data set has '"):
            labels.assign_labels("regression", ["1", category], [])


@example([float(number) for number in range(137)])
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_strata_of_numbers_are_bins_of_like_size_in_their_order(values):
    values = np.array(values)
    bins = np.array([int(each) for each in labels.strata("regression", [""] * len(values), values)])
    order = np.argsort(values)
    assert (np.diff(bins[order]) >= 0).all()
    assert all(len(set(bins[values == value])) == 1 for value in values)
    if len(set(values)) == len(values) >= 10:
        counts = np.bincount(bins)
        assert counts.max() - counts.min() <= 1
        assert counts.min() >= labels.STUDIES_A_BIN or len(counts) == labels.MOST_BINS


def test_sets_of_names_with_those_that_mean_none():
    found = labels.assign_labels("multilabel", ["b|a", "none", "a", "Normal", "b"], ["normal"])
    assert found.names == ("a", "b")
    np.testing.assert_array_equal(found.values, [[1, 1], [0, 0], [1, 0], [0, 0], [0, 1]])
    again = labels.assign_labels("multilabel", ["a"], [], ("c", "a"))
    np.testing.assert_array_equal(again.values, [[0, 1]])
    np.testing.assert_array_equal(labels.rarest(np.array([[1, 1], [1, 0], [0, 0]])), [1, 0, -1])


@pytest.mark.parametrize(
    ("task", "categories", "names", "message"),
    [
        ("multilabel", ["a", "none"], None, "needs two labels or more, the data set has a"),
        ("multilabel", ["a|d"], ("a", "b"), "was trained on a, b; the data set has d"),
        ("classes", ["a", "b", "a|b"], None, r"is of one label a study, the data set has 'a\|b'"),
    ],
)
def test_sets_that_do_not_fit_raise_one_line(task, categories, names, message):
    with pytest.raises(UserError, match=message):
        labels.assign_labels(task, categories, [], names)


def test_rare_sets_are_one_stratum_with_their_rarest_label():
    values = np.array([[1, 0]] * 12 + [[1, 1]] * 2 + [[0, 1]] * 3 + [[0, 0]] * 10)
    found = labels.strata("multilabel", [""] * len(values), values)
    assert set(found[:12]) == {"0"}
    assert set(found[12:17]) == {"rare 1"}
    assert set(found[17:]) == {""}
