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


def test_cutmix_puts_the_same_box_of_the_neighbour_into_volume_and_mask():
    examples = 64
    number = jnp.arange(examples, dtype=jnp.float32)
    volume = jnp.broadcast_to(number[:, None, None, None, None], (examples, 8, 16, 16, 2))
    mask, target = volume[:, :, ::2, ::2, 0], number[:, None]
    keys = jax.random.split(jax.random.key(0), examples)
    mix = jax.vmap(
        lambda keys, arrays: losses.cutmix(keys, arrays, 0.7, "replicas"), axis_name="replicas"
    )  # two replicas
    halves = jax.tree.map(lambda value: value.reshape(2, -1, *value.shape[1:]), (keys, (volume, target, mask)))
    (mixed, blended, coarse), has_box = jax.tree.map(
        lambda value: value.reshape(examples, *value.shape[2:]), mix(*halves)
    )
    before = jnp.roll(number, 1)
    other = mixed == before[:, None, None, None, None]
    assert bool((other | (mixed == volume)).all())
    assert 0.5 < has_box.mean() < 0.9
    assert not other[~has_box].any()
    share = other.mean((1, 2, 3, 4))
    np.testing.assert_allclose((blended[:, 0] - number) / (before - number), share, atol=0.17)
    assert np.ptp(share[has_box]) > 0.7
    on_coarse = (coarse == before[:, None, None, None]).mean((1, 2, 3))
    assert float(jnp.abs(on_coarse - share).mean()) < 0.05
    for axes in ((2, 3), (1, 3), (1, 2)):  # a box: along each axis the voxels are neighbours
        line = other[..., 0].any(axes)
        assert (jnp.abs(jnp.diff(line.astype(int), axis=1)).sum(1) <= 2).all()


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
