"""Arrays with columns folded into the channels, as TPUs compute them, against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from covidscan import models
from covidscan.models import pooling
from covidscan.models.conv import forms, lanes


@pytest.fixture
def as_on_tpus(monkeypatch):
    """Compute what TPUs compute."""
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *operands, default, **platforms: platforms.get("tpu", default)(*operands)
    )


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_columns_are_folded_as_far_as_they_divide_and_fit_into_the_lanes():
    folds = [lanes.columns_to_fold(*each) for each in ((32, 32), (32, 64), (32, 128), (12, 8), (9, 8), (64, 24))]
    assert folds == [4, 1, 1, 4, 1, 4]


@pytest.mark.parametrize("taps", [(1, 3, 3), (3, 1, 1), (1, 1, 1), (3, 3, 5), (1, 2, 2)])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_a_convolution_of_a_folded_array_is_that_of_the_plain_one(taps, fold):
    x, kernel = _random(2, 3, 4, 8, 3), _random(*taps, 3, 5, seed=1)
    got = lanes.convolve_folded(lanes.folded(x, fold), kernel, fold)
    np.testing.assert_allclose(lanes.unfolded(got, fold), forms.convolve_direct(x, kernel, "SAME"), atol=1e-5)


@pytest.mark.parametrize("fold", [1, 4])
@pytest.mark.parametrize("on_tpus", [False, True])
def test_maps_of_a_folded_array_have_the_features_before_the_voxels(fold, on_tpus, request):
    if on_tpus:
        request.getfixturevalue("as_on_tpus")
    x, kernel = _random(2, 3, 4, 8, 5), _random(5, 3, seed=1)
    got = lanes.maps_of_folded(lanes.folded(x, fold), kernel, fold)
    want = jnp.einsum("bsrgpi,im->bmpsrg", x.reshape(2, 3, 4, 8 // fold, fold, 5), kernel)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("window", [(1, 2, 2), (2, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("fold", [1, 4])
def test_means_over_windows_of_a_folded_array(window, fold, as_on_tpus):
    x = _random(2, 5, 7, 8, 3)
    got, fewer = lanes.average_pool_folded(lanes.folded(x, fold), window, fold)
    assert fewer == max(1, fold // window[2])
    np.testing.assert_allclose(lanes.unfolded(got, fewer), pooling.average_pool(x, window), atol=1e-6)


@pytest.mark.parametrize("grid", [(3, 8, 16), (12, 4, 16), (6, 16, 24), (5, 4, 8)])
def test_a_folded_array_is_resized_as_the_plain_one(grid, as_on_tpus):
    x = _random(2, 3, 4, 8, 3)
    got = lanes.unfolded(lanes.resize_folded(lanes.folded(x, 2), 2, grid, 4), 4)
    np.testing.assert_allclose(got, jax.image.resize(x, (2, *grid, 3), "linear"), atol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("size", ["patches", "tiny"])
def test_the_network_and_its_gradients_are_on_tpus_those_of_other_platforms(size, request):
    model = models.create("lung_resnet", 2, size=size, width=8)
    x = _random(2, 4, 32, 32, 2)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * _random(*leaf.shape, seed=leaf.size), params)

    def logits_and_gradients():
        return jax.jit(jax.value_and_grad(lambda params: model.apply({"params": params}, x).sum()))(params)

    plain = logits_and_gradients()
    request.getfixturevalue("as_on_tpus")
    for expected, got in zip(jax.tree.leaves(plain), jax.tree.leaves(logits_and_gradients()), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5 * float(1 + jnp.abs(expected).max()))
