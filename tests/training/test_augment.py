"""Augmentation against SciPy's resampling and against what its words promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from covidscan.training.augment import Augmentation, augment, in_plane_affine


def _smooth_volume(shape=(6, 40, 48)):
    """Smooth blobs on air, far from the border, so that interpolation kernels hardly matter."""
    noise = np.random.default_rng(0).normal(size=shape)
    mask = np.zeros(shape)
    mask[1:-1, 12:-12, 14:-14] = 1
    return (ndimage.gaussian_filter(noise, (0, 3, 3)) * 1000 * ndimage.gaussian_filter(mask, 2)).astype(np.float32)


@settings(max_examples=25)
@given(
    angle=st.floats(-15, 15),
    scale=st.tuples(st.floats(0.9, 1.1), st.floats(0.9, 1.1)),
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    mirror=st.sampled_from([1, -1]),
)
def test_three_passes_equal_one_affine_resampling(angle, scale, shift, mirror):
    volume = _smooth_volume()
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[mirror, 0], [0, 1]]) @ np.array([[cos, -sin], [sin, cos]]) @ np.diag(scale)
    got = in_plane_affine(jnp.asarray(volume), jnp.asarray(matrix, jnp.float32), jnp.asarray(shift, jnp.float32))
    over_rows = matrix[::-1, ::-1]  # (column, row) -> (row, column)
    centre = (np.array(volume.shape[1:]) - 1) / 2
    offset = centre + np.array(shift)[::-1] - over_rows @ centre
    want = np.stack([ndimage.affine_transform(plane, over_rows, offset, order=1) for plane in volume])
    assert np.abs(got - want).max() < 0.06 * np.abs(volume).max()


def test_no_strength_changes_nothing_at_all():
    volume = np.random.default_rng(0).integers(-1024, 1500, (4, 8, 8)).astype(np.int16)
    np.testing.assert_array_equal(augment(jax.random.key(0), volume, Augmentation())[0], volume)


def test_flip_mirrors_left_and_right_half_the_time():
    volume = np.random.default_rng(0).integers(-1024, 1500, (3, 8, 9)).astype(np.int16)
    keys = jax.random.split(jax.random.key(1), 64)
    out = jax.vmap(lambda key: augment(key, volume, Augmentation(flip=0.5))[0])(keys)
    same = [np.allclose(v, volume, atol=0.5) for v in out]
    mirrored = [np.allclose(v, volume[:, :, ::-1], atol=0.5) for v in out]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 <= sum(mirrored) <= 48


def test_what_comes_from_outside_is_air():
    volume = np.full((8, 16, 16), 500, np.int16)
    out = np.asarray(augment(jax.random.key(3), volume, Augmentation(shift=0.5))[0])
    assert out.min() == pytest.approx(-1024, abs=0.01)
    assert out.max() == pytest.approx(500, abs=0.01)


def test_noise_and_intensity_stay_within_their_bounds():
    volume = np.zeros((16, 32, 32), np.int16)
    keys = jax.random.split(jax.random.key(0), 32)
    noisy = jax.vmap(lambda key: augment(key, volume, Augmentation(noise=50.0))[0])(keys)
    deviations = np.asarray(noisy).std(axis=(1, 2, 3))
    assert deviations.max() < 52
    assert deviations.max() > 35
    assert deviations.min() < 15
    shifted = np.asarray(jax.vmap(lambda key: augment(key, volume, Augmentation(intensity=40.0))[0])(keys))
    assert np.abs(shifted).max() <= 40
    assert shifted.max() > 25
    assert shifted.min() < -25


def test_a_mask_moves_with_its_volume():
    lesion = np.zeros((8, 24, 24), np.uint8)
    lesion[3:6, 6:12, 4:10] = 1
    volume = np.where(lesion, 976, -1024).astype(np.int16)  # 2000 HU apart
    how = Augmentation(flip=0.5, scale=0.1, shift=0.05, rotation=10)
    for seed in range(5):
        warped, mask = augment(jax.random.key(seed), volume, how, lesion)
        np.testing.assert_allclose(mask, (np.asarray(warped) + 1024) / 2000, atol=1e-4)
        assert float(jnp.abs(mask - lesion).max()) > 0.2


def test_a_crop_enlarges_without_air():
    volume = np.full((16, 32, 32), 500, np.int16)
    volume[:, :, :16] = 0
    keys = jax.random.split(jax.random.key(2), 16)
    out = np.asarray(jax.vmap(lambda key: augment(key, volume, Augmentation(crop=0.5))[0])(keys))
    assert out[:, 1:-1, 1:-1, 1:-1].min() >= -1
    edge = (out[:, 8, 16] < 250).sum(1)  # column of the edge, which moves as another part is cropped
    assert edge.min() < 13
    assert edge.max() > 19


def test_sharpening_overshoots_at_edges_alone():
    volume = np.full((3, 24, 24), -800, np.int16)
    volume[:, 8:16, 8:16] = 0
    keys = jax.random.split(jax.random.key(0), 24)
    out = np.asarray(jax.vmap(lambda key: augment(key, volume, Augmentation(sharpen=0.6))[0])(keys))
    np.testing.assert_allclose(out[:, 1, 12, 12], 0, atol=0.01)
    np.testing.assert_allclose(out[:, 1, 2:4, 2:22], -800, atol=0.01)
    highest = out.max((1, 2, 3))
    assert (highest < 1).sum() > 6  # the other half of the volumes
    assert 100 < highest.max() < 400
    np.testing.assert_allclose(out[:, :, 4:20, 4:20].mean((1, 2, 3)), volume[:, 4:20, 4:20].mean(), atol=0.5)


@pytest.mark.parametrize("blur", [0.4, 0.7, 1.5, 4.0])
def test_resampling_with_blur_keeps_a_constant(blur):
    volume = np.full((4, 64, 64), 40, np.int16)
    strength = Augmentation(scale=0.1, rotation=8, shift=0.02, blur=blur, sharpen=0.4)
    for key in jax.random.split(jax.random.key(0), 20):
        inside = np.asarray(augment(key, volume, strength)[0])[1:-1, 20:-20, 20:-20]
        np.testing.assert_allclose(inside, 40, atol=0.1)


def test_gamma_bends_the_greys_between_air_and_tissue():
    volume = np.linspace(-1024, 1000, 512).reshape(8, 8, 8).astype(np.int16)
    keys = jax.random.split(jax.random.key(0), 32)
    out = np.asarray(jax.vmap(lambda key: augment(key, volume, Augmentation(gamma=0.25))[0])(keys))
    assert (np.diff(out.reshape(32, -1)) >= 0).all()
    np.testing.assert_allclose(out[:, 0, 0, 0], -1024, atol=0.1)
    np.testing.assert_allclose(out[:, volume > 180] - volume[volume > 180], 0, atol=0.1)
    middle = out[:, (volume > -500) & (volume < -400)].mean(1)
    assert middle.min() < -500
    assert middle.max() > -400


def test_a_dropped_slice_is_the_mean_of_its_neighbours():
    heights = np.arange(12) ** 2
    volume = np.broadcast_to(heights[:, None, None], (12, 4, 4)).astype(np.int16)
    mask = np.zeros((12, 4, 4), np.uint8)
    mask[5] = 1
    keys = jax.random.split(jax.random.key(0), 24)
    out, masks = jax.vmap(lambda key: augment(key, volume, Augmentation(slice_drop=0.3), mask))(keys)
    change = np.asarray(out)[:, 1:-1, 0, 0] - heights[1:-1]
    kept, dropped = np.abs(change) < 0.01, np.abs(change - 1) < 0.01  # ((k - 1)^2 + (k + 1)^2) / 2 = k^2 + 1
    assert (kept | dropped).all()
    assert 0.15 < dropped.mean() < 0.45
    np.testing.assert_allclose(masks, np.broadcast_to(mask, masks.shape), atol=1e-5)
