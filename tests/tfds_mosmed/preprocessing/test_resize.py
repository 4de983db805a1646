import hypothesis
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfds_mosmed.preprocessing.resize import resize, resize_weights

sizes = st.integers(1, 40)
shapes = st.tuples(sizes, sizes, sizes)


@given(shapes, shapes, st.integers(-1024, 1500))
def test_keeps_constants(shape, new_shape, value):
    resized = resize(np.full(shape, value, np.int16), new_shape, -1024, 1500)
    assert resized.shape == new_shape
    np.testing.assert_allclose(resized, value, atol=1e-3)


@given(sizes, sizes)
def test_weights_are_the_triangle_filter_written_out(size, new_size):
    """Weights of each new pixel by hand, from its centre and the distance of each old pixel."""
    weights = resize_weights(size, new_size).toarray()
    scale = size / new_size
    reach = max(1.0, scale)
    for new in range(new_size):
        centre = (new + 0.5) * scale - 0.5
        row = [max(0.0, 1 - abs(old - centre) / reach) for old in range(size)]
        np.testing.assert_allclose(weights[new], np.array(row) / sum(row), atol=1e-6)


@pytest.mark.parametrize(("size", "new_size"), [((61, 47), (16, 20)), ((512, 300), (128, 128)), ((20, 30), (50, 64))])
def test_agrees_with_pillow(size, new_size):
    plane = np.random.default_rng(0).normal(-300, 400, size).astype(np.float32)
    image = PIL.Image.fromarray(plane).resize(new_size[::-1], PIL.Image.Resampling.BILINEAR)
    resized = resize(plane[None], (1, *new_size), -1e9, 1e9)[0]
    np.testing.assert_allclose(resized, np.asarray(image), atol=2e-2)


@hypothesis.settings(max_examples=30)
@given(st.integers(1, 4), st.integers(5, 10), st.integers(0, 2**32 - 1))
def test_shrinking_by_a_whole_factor_keeps_the_mean_and_the_centre_of_mass(factor, new_size, seed):
    """Away from the edge every old pixel counts as much as every other."""
    size = factor * new_size
    volume = np.zeros((size, size, size), np.float32)
    inner = (slice(2 * factor, size - 2 * factor),) * 3
    volume[inner] = np.random.default_rng(seed).uniform(1, 1000, volume[inner].shape)
    resized = resize(volume, (new_size,) * 3, -1024, 1500)
    assert resized.mean() == pytest.approx(volume.mean(), rel=1e-4, abs=1e-3)

    def centre(of, axis):
        weights = of.sum(axis=tuple({0, 1, 2} - {axis}))
        return float(((np.arange(len(weights)) + 0.5) * weights).sum() / weights.sum() / len(weights))

    for axis in range(3):
        assert centre(resized, axis) == pytest.approx(centre(volume, axis), abs=1e-3)


@given(shapes, shapes, st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_flipping_before_is_flipping_after(shape, new_shape, axis, seed):
    volume = np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)
    flipped = resize(np.flip(volume, axis), new_shape, -1024, 1500)
    np.testing.assert_allclose(flipped, np.flip(resize(volume, new_shape, -1024, 1500), axis), atol=0.5)


def test_does_not_alias():
    """A checkerboard finer than the new grid becomes its mean; interpolation alone would pick one colour."""
    board = (np.indices((8, 128, 128)).sum(axis=0) % 2 * 1000).astype(np.int16)
    resized = resize(board, (8, 32, 32), -1024, 1500)
    np.testing.assert_allclose(resized[:, 1:-1, 1:-1], 500, atol=1)


def test_clips_before_it_averages():
    """Padding of -3024 beside water must not pull the edge of the field of view below air."""
    volume = np.zeros((4, 32, 32), np.int16)
    volume[:, :, :16] = -3024
    np.testing.assert_array_equal(resize(volume, (4, 8, 8), -1024, 1500)[:, :, :3].round(), -1024)


def test_is_the_same_with_any_number_of_threads_and_memory_layout():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    volume = np.random.default_rng(0).integers(-1024, 1500, (30, 200, 180)).astype(np.int16)
    with threadpoolctl.threadpool_limits(1):
        one = resize(volume, (16, 64, 64), -1024, 1500)
    with threadpoolctl.threadpool_limits(4):
        four = resize(np.asfortranarray(volume), (16, 64, 64), -1024, 1500)
    np.testing.assert_array_equal(one, four)
