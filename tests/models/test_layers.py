"""Layers and networks against independent formulas."""

import functools

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covidscan import config, models
from covidscan.models import layers, pooling
from tests.support.networks import NETWORKS


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=20)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(3, 7)] * 3))
def test_pooling_takes_disjoint_windows_and_drops_the_rest(window, size):
    x = _random(1, *size, 2)
    counts = [n // w for n, w in zip(size, window, strict=True)]
    for pool, reduce in ((pooling.max_pool, np.max), (pooling.average_pool, np.mean)):
        got = np.asarray(pool(jnp.asarray(x), window))
        assert got.shape == (1, *counts, 2)
        for index in np.ndindex(*counts):
            box = tuple(slice(p * w, (p + 1) * w) for p, w in zip(index, window, strict=True))
            np.testing.assert_allclose(got[(0, *index)], reduce(x[0][box], axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_where_all_voxels_are_alike(name):
    # Everywhere the same air: ties in every maximum, no variance in any group.
    model = models.create(name, 2, width=8)
    x = jnp.zeros((2, 16, 16, 16, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = lambda params: model.apply({**variables, "params": params}, x).sum()  # noqa: E731
    for leaf in jax.tree.leaves(jax.jit(jax.grad(apply))(variables["params"])):
        assert bool(jnp.isfinite(leaf).all())


def test_space_to_channels_keeps_every_voxel_of_a_window_together():
    x = np.arange(2 * 2 * 4 * 4).reshape(2, 2, 4, 4, 1)
    got = np.asarray(pooling.space_to_channels(jnp.asarray(x), (1, 2, 2)))
    assert got.shape == (2, 2, 2, 2, 4)
    assert sorted(got[1, 1, 0, 1]) == sorted(x[1, 1, :2, 2:, 0].ravel())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_group_normalisation_is_that_of_flax(dtype):
    x = jnp.asarray(3 + 2 * _random(2, 3, 4, 5, 12), dtype)
    weights = jnp.asarray(_random(*x.shape, seed=1))
    mine, flax = layers.GroupNorm(3, dtype), nn.GroupNorm(num_groups=3, dtype=dtype)
    params = {"scale": jnp.asarray(_random(12, seed=2)), "bias": jnp.asarray(_random(12, seed=3))}

    @functools.partial(jax.jit, static_argnums=0)
    def results(layer, params, x):
        apply = lambda params, x: (weights * layer.apply({"params": params}, x)).sum()  # noqa: E731
        return layer.apply({"params": params}, x), jax.grad(apply, (0, 1))(params, x)

    assert jax.tree.map(jnp.shape, mine.init(jax.random.key(0), x)) == {"params": jax.tree.map(jnp.shape, params)}
    tolerance = 1e-4 if dtype == jnp.float32 else 2e-2
    for one, other in zip(*map(jax.tree.leaves, (results(mine, params, x), results(flax, params, x))), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(
            one.astype(jnp.float32), other.astype(jnp.float32), rtol=tolerance, atol=tolerance * 10
        )


@pytest.mark.parametrize("whole", [False, True])
def test_dropout_depends_on_the_position_in_the_global_batch(whole):
    x = jnp.ones((2000, 2) if whole else (8, 1000))
    layer = layers.Dropout(0.4, axis_name="replicas", whole=whole)
    apply = lambda x: layer.apply({}, x, True, rngs={"dropout": jax.random.key(0)})  # noqa: E731
    dropped = jax.vmap(apply, axis_name="replicas")(x[None])[0]
    split = jax.vmap(apply, axis_name="replicas")(x.reshape(4, -1, x.shape[-1])).reshape(x.shape)
    np.testing.assert_array_equal(dropped, split)
    assert 0.37 < float((dropped == 0).mean()) < 0.43
    np.testing.assert_allclose(dropped[dropped > 0], 1 / 0.6, rtol=1e-6)
    assert not np.array_equal(dropped[0], dropped[1]) or whole
    assert np.array_equal(dropped[:, 0], dropped[:, 1]) == whole


@pytest.mark.parametrize(
    ("name", "windows", "outputs", "count", "statistics"),
    [
        ("covidscan_cnn", 1, 2, 77_426_178, 384),
        ("keras_cnn", 1, 1, 1_351_873, 1024),  # as the example prints them
        # torchvision documents 33,371,472 of its r3d_18, whose stem has 3x7x7 taps in place of 7x7x7.
        ("resnet3d18", 3, 400, 33_371_472 + 3 * 64 * (7 - 3) * 7 * 7, 9600),
        # torchvision documents 7,978,856 of densenet121 in 2-D, for three channels and 1000 classes.
        pytest.param(
            "densenet3d121",
            1,
            2,
            7_978_856 - 1_025_000 + 2050 + 64 * (343 - 3 * 49) + 58 * 128 * 32 * (27 - 9),
            83_648,
            marks=pytest.mark.sampled,
        ),
    ],
)
def test_published_networks_have_exactly_their_number_of_parameters(name, windows, outputs, count, statistics):
    model = models.create(name, outputs)
    made = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 64, 64, windows)))
    found = [sum(leaf.size for leaf in jax.tree.leaves(made[kind])) for kind in ("params", "batch_stats")]
    assert found == [count, statistics]


def test_the_flag_names_every_network():
    assert tuple(models.NETWORKS) == config.NETWORKS


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        ("covidscan_cnn", {}, (16, 32, 32)),
        ("covidscan_cnn", {}, (20, 40, 48)),
        ("lung_resnet", {}, (16, 32, 32)),
        ("lung_resnet", {"size": "tiny"}, (6, 24, 22)),
        pytest.param("keras_cnn", {}, (12, 32, 32), marks=pytest.mark.sampled),
        pytest.param("resnet3d18", {}, (12, 32, 32), marks=pytest.mark.sampled),
        pytest.param("densenet3d121", {}, (12, 32, 32), marks=pytest.mark.sampled),
    ],
)
def test_networks_give_finite_float32_logits_and_bfloat16_is_near_float32(name, settings, shape):
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *shape, 2)), jnp.float32)
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.create(name, 3, width=8, dtype=dtype, **settings)
        variables = jax.jit(model.init)(jax.random.key(0), x)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        logits[dtype] = jax.jit(model.apply)(variables, x)
        assert logits[dtype].shape == (2, 3)
        assert logits[dtype].dtype == jnp.float32
    assert bool(jnp.isfinite(logits[jnp.float32]).all())
    np.testing.assert_allclose(logits[jnp.bfloat16], logits[jnp.float32], atol=0.05, rtol=0.05)
