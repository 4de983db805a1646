"""Training crops about lesions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covidscan.config import Config
from covidscan.data.feed import Batch
from covidscan.training.crops import crop, crop_shape
from covidscan.training.experiment import create_experiment
from tests.training.test_step import STILL
from tfds_mosmed.errors import UserError

SHAPE, CROP = (12, 32, 24), (4, 16, 12)
crops = jax.jit(jax.vmap(lambda key, volume, mask: crop(key, volume, mask, CROP), (0, None, None)))


def _keys(number):
    return jax.random.split(jax.random.key(0), number)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*(st.integers(0, size - 1) for size in SHAPE)))
def test_a_lesion_of_one_voxel_is_in_the_middle_half_of_every_crop_or_at_the_volumes_edge(voxel):
    volume = np.random.default_rng(0).integers(-1024, 600, SHAPE).astype(np.int16)
    volume[voxel] = 700
    mask = np.zeros(SHAPE, np.uint8)
    mask[voxel] = 1
    cropped, masks = map(np.asarray, crops(_keys(16), volume, mask))
    assert (masks.sum((1, 2, 3)) == 1).all()
    np.testing.assert_array_equal(cropped == 700, masks == 1)  # the same part of both
    for place in np.argwhere(masks)[:, 1:]:
        for at, size, here, whole in zip(place, CROP, voxel, SHAPE, strict=True):
            near_edge = here < 3 * size // 4 or here >= whole - 3 * size // 4
            assert size // 4 <= at <= 3 * size // 4 or near_edge


def test_each_voxel_of_a_lesion_is_drawn_equally_often():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 8:12, 6:18] = 1  # 48 of 50 voxels
    mask[9, 20, 3:5] = 1
    cropped = np.asarray(crops(_keys(2000), np.zeros(SHAPE, np.int16), mask)[1])
    assert 0.015 < (cropped.sum((1, 2, 3)) <= 2).mean() < 0.075


def test_without_a_lesion_crops_are_about_partly_aerated_lung():
    volume = np.full(SHAPE, -870, np.int16)
    volume[:, :, :4] = 40
    volume[6, 24, 18] = -500
    cropped = np.asarray(crops(_keys(32), volume, np.zeros(SHAPE, np.uint8))[0])
    assert (cropped == -500).any((1, 2, 3)).all()


def test_a_diseased_study_without_a_mask_has_no_weight():
    config = Config(lesion_crops="16x16x8", size="tiny", **STILL)
    experiment = create_experiment(config, 2, (16, 32, 32), num_train=8)
    volume = np.full((1, 4, 16, 32, 32), -870, np.int16)
    mask, known = np.zeros(volume.shape, np.uint8), np.array([[True, True, False, True]])
    mask[0, :2, 8, 8, 8] = 1
    batch = Batch(volume, jnp.array([[1, 1, 1, 0]]), jnp.full((1, 4), 2.0), mask, known)
    augmented = jax.vmap(experiment.replica_step().augmented, (None, 0), axis_name="replicas")
    inputs = augmented(experiment.create_state(), batch)
    assert inputs.x.shape == (1, 4, 8, 16, 16, 3)
    np.testing.assert_array_equal(inputs.weight[0], [2, 2, 0, 2])
    np.testing.assert_array_equal(inputs.has_lesion_mask[0], known[0])
    np.testing.assert_array_equal(np.asarray(inputs.lesion_mask).max((0, 2, 3, 4)) > 0, [True, True, False, False])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lesion_crops": "64x64"}, "--lesion_crops=64x64: write ROWSxCOLUMNSxSLICES"),
        ({"lesion_crops": "0x16x16"}, "--lesion_crops=0x16x16: write ROWSxCOLUMNSxSLICES"),
        ({"lesion_crops": "16x64x16"}, "--lesion_crops=16x64x16: the records are 64x48x16"),
        ({"size": "patches"}, "--lesion_crops=16x16x8: parameters of this network depend on the size of the volume"),
        ({"model": "densenet3d121"}, "--lesion_crops=16x16x8: this network has no map that learns from lesion masks"),
        ({"lesion_crops": "18x16x8"}, "--lesion_crops=18x16x8: give multiples of 4, 4 and 1 voxels"),
    ],
)
def test_crops_that_do_not_fit_are_refused(changes, reason):
    config = Config(**{"lesion_crops": "16x16x8", "size": "tiny", **changes})
    with pytest.raises(UserError, match=f"^{reason}"):
        create_experiment(config, 2, (16, 64, 48), num_train=8).check_crops()


def test_crops_are_of_rows_columns_and_slices():
    assert crop_shape("64x48x16", (32, 128, 128)) == (16, 64, 48)
