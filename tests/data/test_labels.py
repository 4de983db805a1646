"""Labels, targets, losses and probabilities of the three tasks."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from covidscan.data import labels
from tfds_mosmed.errors import UserError

CATEGORIES = ["CT-0", "CT-1", "CT-4", "CT-3", "CT-2"]


def test_binary_is_ct0_against_the_rest():
    found = labels.labels("binary", CATEGORIES, ["CT-0", "normal"])
    np.testing.assert_array_equal(found.values, [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(labels.labels("binary", ["Normal", "cap"], ["normal"]).values, [0, 1])


def test_severity_joins_ct3_and_ct4():
    found = labels.labels("severity", CATEGORIES, [])
    np.testing.assert_array_equal(found.values, [0, 1, 3, 3, 2])
    assert found.names == ("CT-0", "CT-1", "CT-2", "CT-3+4")


def test_classes_keep_the_order_that_the_model_was_trained_with():
    assert labels.labels("classes", ["covid", "cap"], []).names == ("cap", "covid")
    found = labels.labels("classes", ["covid", "cap"], [], names=("covid", "normal", "cap"))
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
def test_categories_that_do_not_fit_are_told_of_in_one_line(task, categories, negative, names, message):
    with pytest.raises(UserError, match=message) as error:
        labels.labels(task, categories, negative, names)
    assert "\n" not in str(error.value)


def test_severity_targets_and_loss_by_hand():
    target = labels.targets("severity", jnp.array([0, 2]), 4, smoothing=0.1)
    np.testing.assert_allclose(target, [[0.05, 0.05, 0.05], [0.95, 0.95, 0.05]], rtol=1e-6)
    loss = labels.loss("severity", jnp.zeros((2, 3)), target)
    np.testing.assert_allclose(loss, 3 * np.log(2), rtol=1e-6)


def test_class_targets_and_loss_by_hand():
    target = labels.targets("classes", jnp.array([1]), 2, smoothing=0.2)
    np.testing.assert_allclose(target, [[0.1, 0.9]], rtol=1e-6)
    loss = labels.loss("classes", jnp.log(jnp.array([[0.25, 0.75]])), target)
    np.testing.assert_allclose(loss, -(0.1 * np.log(0.25) + 0.9 * np.log(0.75)), rtol=1e-5)


LOGITS = st_numpy.arrays(np.float32, (5, 3), elements=st.floats(-20, 20, width=32))


@given(LOGITS, st.sampled_from(labels.TASKS))
def test_probabilities_are_probabilities(logits, task):
    found = np.asarray(labels.probabilities(task, jnp.asarray(logits)))
    assert found.shape == (5, 4 if task == "severity" else 3)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_severity_probabilities_by_hand():
    exceeds = np.array([0.9, 0.5, 0.2])
    logits = jnp.log(exceeds / (1 - exceeds))
    np.testing.assert_allclose(labels.probabilities("severity", logits), [0.1, 0.4, 0.3, 0.2], rtol=1e-5)
