"""Layers against independent formulas: sums over taps, SciPy, NumPy."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from covidscan import models
from covidscan.models import layers, pooling
from covidscan.models.conv import cpu, winograd
from covidscan.models.conv.cpu import convolve_on_cpu
from covidscan.models.conv.forms import (
    convolve_along_slices,
    convolve_by_patches,
    convolve_by_slices,
    convolve_by_wide_patches,
    convolve_direct,
)
from covidscan.models.conv.pooled import convolve_and_pool
from covidscan.models.conv.winograd import convolve_by_points


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FORMS = [
    convolve_by_slices,
    convolve_by_patches,
    convolve_by_wide_patches,
    convolve_by_points,
    convolve_along_slices,
]
KERNEL_SIZES = [(3, 3, 3), (1, 3, 3), (2, 3, 3), (3, 1, 1)]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("form", "kernel_size"),
    [
        *itertools.product(
            [convolve_direct, convolve_by_slices, convolve_by_patches, convolve_by_wide_patches], KERNEL_SIZES
        ),
        *itertools.product([convolve_by_points], KERNEL_SIZES[:3]),
        (convolve_along_slices, (3, 1, 1)),
    ],
)
def test_convolution_is_the_sum_over_taps_that_scipy_gives(form, padding, kernel_size):
    x, kernel = _random(2, 5, 6, 7, 2), _random(*kernel_size, 2, 3, seed=1)
    got = form(jnp.asarray(x), jnp.asarray(kernel), padding)
    mode = padding.lower()
    for b in range(2):
        for out in range(3):
            # A network's convolution is a correlation; SciPy centres even kernels one place later.
            want = sum(signal.correlate(x[b, ..., i], kernel[..., i, out], mode="full") for i in range(2))
            if mode == "same":
                crop = [slice((k // 2), (k // 2) + n) for k, n in zip(kernel_size, x.shape[1:4], strict=True)]
            else:
                crop = [slice(k - 1, n) for k, n in zip(kernel_size, x.shape[1:4], strict=True)]
            np.testing.assert_allclose(got[b, ..., out], want[tuple(crop)], rtol=1e-4, atol=1e-4)


def _with_gradients(function, x, kernel):
    gradient = _random(*jax.eval_shape(function, x, kernel).shape, seed=2)

    @jax.jit  # one program compiles sooner than each of its operations
    def both(x, kernel):
        y, backward = jax.vjp(function, x, kernel)
        return y, *backward(gradient)

    return both(x, kernel)


def _assert_near(got, want):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("slices_a_slab", "small"), [(1, True), (2, True), (2, False), (4, False)])
def test_by_points_slab_by_slab_is_the_direct_convolution(slices_a_slab, small, padding, monkeypatch):
    x, kernel = _random(2, 9, 6, 7, 3), _random(3, 3, 3, 3, 5, seed=1)
    of_a_slice = 36 * 2 * 2 * 3 * 3 * 4  # points x tiles x slice taps x channels x bytes
    monkeypatch.setattr(winograd, "SLAB_BYTES", slices_a_slab * of_a_slice)
    monkeypatch.setattr(winograd, "THREADS_SHARE_SMALL_PRODUCTS", small)
    by_points = _with_gradients(lambda x, kernel: convolve_by_points(x, kernel, padding), x, kernel)
    _assert_near(by_points, _with_gradients(lambda x, kernel: convolve_direct(x, kernel, padding), x, kernel))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(FORMS),
    st.sampled_from(["SAME", "VALID"]),
    st.integers(1, 3),
    st.tuples(*[st.integers(3, 11)] * 3),
)
def test_all_forms_of_the_convolution_have_the_same_values_and_gradients(form, padding, taps, size):
    plane = (1, 1) if form is convolve_along_slices else (3, 3)
    x, kernel = _random(2, *size, 3), _random(taps, *plane, 3, 4, seed=1)
    want = _with_gradients(lambda x, kernel: convolve_direct(x, kernel, padding), x, kernel)
    _assert_near(_with_gradients(lambda x, kernel: form(x, kernel, padding), x, kernel), want)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["SAME", "VALID"]),
    st.integers(1, 3),
    st.tuples(*[st.integers(3, 9)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
)
def test_pooled_slab_by_slab_or_after_the_convolution_is_the_same(padding, taps, size, window):
    x, kernel = _random(2, *(max(n, w + 2) for n, w in zip(size, window, strict=True)), 2), _random(taps, 3, 3, 2, 4)
    got = _with_gradients(lambda x, kernel: convolve_and_pool(x, kernel, padding, window), x, kernel)
    want = _with_gradients(lambda x, kernel: pooling.max_pool(convolve_direct(x, kernel, padding), window), x, kernel)
    _assert_near(got, want)


@pytest.mark.parametrize(
    ("form", "shape", "kernel_size", "pool"),
    [
        ("convolve_by_patches", (2, 4, 8, 8, 1), (3, 3, 3), None),
        ("convolve_and_pool", (2, 4, 8, 8, 1), (3, 3, 3), (2, 2, 2)),
        ("convolve_by_points", (2, 16, 16, 16, 12), (3, 3, 3), None),
        ("convolve_by_points", (2, 16, 16, 16, 12), (3, 3, 3), (2, 2, 2)),
        ("convolve_by_slices", (2, 4, 16, 16, 24), (3, 3, 3), None),  # few tiles
        ("convolve_by_wide_patches", (2, 4, 8, 8, 24), (3, 3, 3), None),
        ("convolve_by_slices", (2, 16, 16, 16, 24), (1, 3, 3), None),  # few channels
        ("convolve_by_slices", (2, 16, 16, 16, 64), (1, 1, 1), None),
        ("convolve_along_slices", (2, 16, 16, 16, 64), (3, 1, 1), None),
    ],
)
def test_on_cpus_the_size_decides_the_form_and_the_result_is_the_same(form, shape, kernel_size, pool, monkeypatch):
    used = []
    original = getattr(cpu, form)
    monkeypatch.setattr(cpu, form, lambda *arguments: used.append(form) or original(*arguments))
    x, kernel = _random(*shape), _random(*kernel_size, shape[-1], 8, seed=1)
    got = _with_gradients(lambda x, kernel: convolve_on_cpu(x, kernel, "SAME", pool), x, kernel)
    assert set(used) == {form}

    def convolved_then_pooled(x, kernel):
        return pooling.max_pool(convolve_direct(x, kernel, "SAME"), pool or (1, 1, 1))

    _assert_near(got, _with_gradients(convolved_then_pooled, x, kernel))


@pytest.mark.parametrize(
    ("shape", "kernel_size", "pool"),
    [
        ((8, 8, 8, 1), (3, 3, 3), (2, 2, 2)),  # by patches
        ((32, 16, 16, 12), (3, 3, 3), (2, 2, 2)),  # by points
        ((4, 8, 8, 24), (3, 3, 3), None),  # by slices
        ((4, 8, 8, 24), (3, 1, 1), None),  # along slices
    ],
)
def test_every_form_is_exported_for_any_number_of_examples(shape, kernel_size, pool):
    kernel = _random(*kernel_size, shape[-1], 8, seed=1)
    convolve = jax.jit(lambda x: convolve_on_cpu(x, kernel, "SAME", pool))
    any_number = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
    exported = jax.export.export(convolve)(jax.ShapeDtypeStruct((*any_number, *shape), jnp.float32))
    for number in (1, 3):
        x = _random(number, *shape)
        np.testing.assert_allclose(exported.call(x), convolve(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("rows", [2, layers.MAX_ROWS_BY_SUMS + 1])
def test_rows_by_a_large_kernel_are_a_product_of_matrices(rows):
    x, kernel = _random(rows, 50), _random(50, 7, seed=1)
    got = _with_gradients(lambda x, kernel: layers.dot_large_kernel(x, kernel, None), x, kernel)
    _assert_near(got, _with_gradients(lambda x, kernel: x @ kernel, x, kernel))


@settings(max_examples=20)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(3, 7)] * 3))
def test_pooling_takes_disjoint_windows_and_drops_the_rest(window, size):
    x = _random(1, *size, 2)
    counts = [n // w for n, w in zip(size, window, strict=True)]
    for pool, reduce in ((pooling.max_pool, np.max), (pooling.average_pool, np.mean)):
        got = np.asarray(pool(jnp.asarray(x), window))
        assert got.shape == (1, *counts, 2)
        for place in np.ndindex(*counts):
            box = tuple(slice(p * w, (p + 1) * w) for p, w in zip(place, window, strict=True))
            np.testing.assert_allclose(got[(0, *place)], reduce(x[0][box], axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
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


def test_dropout_goes_by_the_place_in_the_global_batch():
    x = jnp.ones((8, 1000))
    layer = layers.Dropout(0.4, axis_name="replicas")
    apply = lambda x: layer.apply({}, x, True, rngs={"dropout": jax.random.key(0)})  # noqa: E731
    whole = jax.vmap(apply, axis_name="replicas")(x[None])[0]
    split = jax.vmap(apply, axis_name="replicas")(x.reshape(4, 2, -1)).reshape(x.shape)
    np.testing.assert_array_equal(whole, split)
    assert 0.37 < float((whole == 0).mean()) < 0.43
    np.testing.assert_allclose(whole[whole > 0], 1 / 0.6, rtol=1e-6)
    assert not np.array_equal(whole[0], whole[1])


def test_covidscan_cnn_has_exactly_the_size_of_the_original():
    model = models.create("covidscan_cnn", 2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 64, 64, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 77_426_562


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
@pytest.mark.parametrize("shape", [(16, 32, 32), (20, 40, 48)])
def test_networks_give_finite_float32_logits_and_bfloat16_is_near_float32(name, shape):
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *shape, 2)), jnp.float32)
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.create(name, 3, width=8, dtype=dtype)
        variables = jax.jit(model.init)(jax.random.key(0), x)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        logits[dtype] = jax.jit(model.apply)(variables, x)
        assert logits[dtype].shape == (2, 3)
        assert logits[dtype].dtype == jnp.float32
    assert bool(jnp.isfinite(logits[jnp.float32]).all())
    np.testing.assert_allclose(logits[jnp.bfloat16], logits[jnp.float32], atol=0.05, rtol=0.05)
