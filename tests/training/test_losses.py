"""Targets and losses of the tasks, worked by hand; mixup."""

import jax
import jax.numpy as jnp
import numpy as np

from covidscan.models import heads
from covidscan.training import losses


def test_severity_targets_and_loss_by_hand():
    target = losses.targets("severity", jnp.array([0, 2]), 4, smoothing=0.1)
    np.testing.assert_allclose(target, [[0.05, 0.05, 0.05], [0.95, 0.95, 0.05]], rtol=1e-6)
    loss = losses.loss("severity", jnp.zeros((2, 3)), target)
    np.testing.assert_allclose(loss, 3 * np.log(2), rtol=1e-6)


def test_class_targets_and_loss_by_hand():
    target = losses.targets("classes", jnp.array([1]), 2, smoothing=0.2)
    np.testing.assert_allclose(target, [[0.1, 0.9]], rtol=1e-6)
    loss = losses.loss("classes", jnp.log(jnp.array([[0.25, 0.75]])), target)
    np.testing.assert_allclose(loss, -(0.1 * np.log(0.25) + 0.9 * np.log(0.75)), rtol=1e-5)


def test_mixup_blends_with_the_neighbour_in_the_global_batch():
    x = jnp.arange(8.0).reshape(4, 2, 1)  # (replica, batch, 1)
    roll = jax.vmap(lambda x: losses.previous_in_global_batch(x, "replicas"), axis_name="replicas")
    np.testing.assert_array_equal(roll(x).ravel(), [7, 0, 1, 2, 3, 4, 5, 6])


def test_a_blend_has_a_known_mask_where_both_examples_have_one():
    known = jnp.array([1.0, 0, 1, 1]).reshape(2, 2)  # (replica, batch)
    both = jax.vmap(lambda known: losses.both_known(known, "replicas"), axis_name="replicas")
    np.testing.assert_array_equal(both(known).ravel(), [1, 0, 0, 1])


def test_regression_is_the_huber_loss_of_scaled_labels():
    scaling = heads.Scaling(mean=10.0, scale=2.0)
    target = losses.targets("regression", jnp.array([11.0, 16.0]), 1, smoothing=0.3, scaling=scaling)
    np.testing.assert_allclose(target, [[0.5], [3.0]])
    loss = losses.loss("regression", jnp.zeros((2, 1)), target)
    np.testing.assert_allclose(loss, [0.125, 2.5])  # squares up to one, then linear
    np.testing.assert_allclose(heads.probabilities("regression", target, scaling), [[11.0], [16.0]])


def test_sets_of_labels_are_questions_of_their_own():
    target = losses.targets("multilabel", jnp.array([[1, 0], [1, 1]]), 2, smoothing=0.2)
    np.testing.assert_allclose(target, [[0.9, 0.1], [0.9, 0.9]], rtol=1e-6)
    loss = losses.loss("multilabel", jnp.zeros((2, 2)), target)
    np.testing.assert_allclose(loss, [2 * np.log(2)] * 2, rtol=1e-6)
