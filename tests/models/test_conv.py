"""Convolution algorithms against independent formulas: sums over taps by SciPy, the direct convolution."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from covidscan.models import conv, pooling
from covidscan.models.conv import conv3d, conv_patches, cpu, thresholds
from covidscan.models.conv.cpu import convolve_on_cpu
from covidscan.models.conv.forms import (
    convolve_along_slices,
    convolve_by_patches,
    convolve_by_slices,
    convolve_by_wide_patches,
    convolve_direct,
    multiply_patches_on_tpu,
)
from covidscan.models.conv.lanes import unfolded
from covidscan.models.conv.large_dense import dot_large_kernel
from covidscan.models.conv.pooled import convolve_and_pool
from covidscan.models.conv.winograd import convolve_winograd


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FORMS = [
    convolve_by_slices,
    convolve_by_patches,
    convolve_by_wide_patches,
    convolve_winograd,
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
        *itertools.product([convolve_winograd], KERNEL_SIZES[:3]),
        (convolve_along_slices, (3, 1, 1)),
    ],
)
def test_convolution_is_the_sum_over_taps_that_scipy_gives(form, padding, kernel_size):
    x, kernel = _random(2, 5, 6, 7, 2), _random(*kernel_size, 2, 3, seed=1)
    got = form(jnp.asarray(x), jnp.asarray(kernel), padding)
    mode = padding.lower()
    for b in range(2):
        for out in range(3):
            # A network's convolution is a correlation; SciPy centres even kernels one voxel later.
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
def test_winograd_slab_by_slab_is_the_direct_convolution(slices_a_slab, small, padding, monkeypatch):
    x, kernel = _random(2, 9, 6, 7, 3), _random(3, 3, 3, 3, 5, seed=1)
    of_a_slice = 36 * 2 * 2 * 3 * 3 * 4  # points x tiles x slice taps x channels x bytes
    monkeypatch.setattr(thresholds, "WINOGRAD_SLAB_BYTES", slices_a_slab * of_a_slice)
    monkeypatch.setattr(thresholds, "THREADS_SHARE_SMALL_PRODUCTS", small)
    winograd = _with_gradients(lambda x, kernel: convolve_winograd(x, kernel, padding), x, kernel)
    _assert_near(winograd, _with_gradients(lambda x, kernel: convolve_direct(x, kernel, padding), x, kernel))


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
        ("convolve_winograd", (2, 16, 16, 16, 12), (3, 3, 3), None),
        ("convolve_winograd", (2, 16, 16, 16, 12), (3, 3, 3), (2, 2, 2)),
        ("convolve_by_slices", (2, 4, 16, 16, 24), (3, 3, 3), None),  # few tiles
        ("convolve_by_wide_patches", (2, 4, 8, 8, 24), (3, 3, 3), None),
        ("convolve_by_slices", (2, 16, 16, 16, 24), (1, 3, 3), None),  # few channels
        ("convolve_by_slices", (2, 16, 16, 16, 64), (1, 1, 1), None),
        ("convolve_along_slices", (2, 16, 16, 16, 64), (3, 1, 1), None),
    ],
)
def test_on_cpus_the_shape_decides_the_algorithm_and_the_result_is_the_same(
    form, shape, kernel_size, pool, monkeypatch
):
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
        ((32, 16, 16, 12), (3, 3, 3), (2, 2, 2)),  # Winograd
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


@pytest.mark.parametrize(
    ("shape", "kernel_size", "pool"),
    [
        ((2, 4, 8, 8, 1), (3, 3, 3), (2, 2, 2)),
        ((2, 16, 16, 16, 12), (3, 3, 3), None),
        ((2, 4, 8, 8, 24), (3, 1, 1), None),
    ],
)
def test_an_environment_variable_leaves_the_algorithms_for_cpus_out(shape, kernel_size, pool, monkeypatch):
    x, kernel = _random(*shape), _random(*kernel_size, shape[-1], 8, seed=1)
    chosen = _with_gradients(lambda x, kernel: conv3d(x, kernel, "SAME", pool), x, kernel)
    monkeypatch.setenv("COVIDSCAN_DIRECT_CONV", "1")
    monkeypatch.setattr(conv, "convolve_on_cpu", None)
    _assert_near(_with_gradients(lambda x, kernel: conv3d(x, kernel, "SAME", pool), x, kernel), chosen)


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 65])
def test_rows_by_a_large_kernel_are_a_product_of_matrices(rows):
    x, kernel = _random(rows, 50), _random(50, 7, seed=1)
    got = _with_gradients(lambda x, kernel: dot_large_kernel(x, kernel, None), x, kernel)
    _assert_near(got, _with_gradients(lambda x, kernel: x @ kernel, x, kernel))


@pytest.mark.parametrize("form", [conv_patches, multiply_patches_on_tpu])
@pytest.mark.parametrize(
    ("shape", "window", "fold"),
    [((2, 8, 12), (1, 4, 4), 1), ((1, 5, 192), (1, 2, 2), 4), ((1, 8, 192), (1, 8, 8), 8), ((1, 3, 7), (1, 1, 1), 1)],
)
def test_patches_are_multiplied_voxel_by_voxel(form, shape, window, fold):
    height, width = window[1:]
    x, kernel = _random(2, *shape, 3), _random(1, 1, 1, height * width * 3, 5, seed=1)
    slices, rows, columns = shape
    x_used = x[:, :, : rows // height * height]
    patches = x_used.reshape(2, slices, rows // height, height, columns // width, width, 3)
    want = np.einsum("bsrhcwi,hwif->bsrcf", patches, kernel.reshape(height, width, 3, 5))
    weights = _random(*want.shape, seed=2)

    @jax.jit
    def outputs_and_gradients(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: unfolded(form(x, kernel, window, fold), fold), x, kernel)
        return y, *pull(jnp.asarray(weights))

    got, of_x, of_kernel = outputs_and_gradients(x, kernel)
    np.testing.assert_allclose(got, want, atol=1e-4)
    want = np.einsum("bsrhcwi,bsrcf->hwif", patches, weights).reshape(kernel.shape)
    np.testing.assert_allclose(of_kernel, want, atol=1e-3)
    of_patches = np.einsum("bsrcf,hwif->bsrhcwi", weights, kernel.reshape(height, width, 3, 5))
    np.testing.assert_allclose(of_x[:, :, : x_used.shape[2]], of_patches.reshape(x_used.shape), atol=1e-4)


def test_patches_take_another_form_on_tpus_and_the_stacked_one_where_it_does_not_fit():
    form = lambda x, kernel: conv_patches(x, kernel, (1, 4, 4))  # noqa: E731

    def text(columns, platform):
        x, kernel = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, 2, 8, columns, 3), (1, 1, 1, 48, 5)))
        return jax.jit(form).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

    assert "concatenate" not in text(16, "tpu")
    assert "concatenate" in text(16, "cuda")
    assert "concatenate" in text(18, "tpu")
