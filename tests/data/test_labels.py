"""Labels of the three tasks."""

import numpy as np
import pytest

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
