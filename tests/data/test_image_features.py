"""Features of studies that need no network."""

import numpy as np
import pytest

from covidscan.data.image_features import CELLS, features_of, study_features
from tests.support.evaluations import chest
from tfds_mosmed.preprocessing.lung_region import lung_region


def record(volume=None, slices=41):
    plain, spacing, *_ = chest()
    return {
        "volume": plain if volume is None else volume,
        "spacing_mm": np.asarray(spacing, np.float32),
        "source_shape": np.asarray([slices, 512, 512], np.int32),
        "source_spacing_mm": np.asarray([8, 0.75, 0.5], np.float32),
    }


def test_acquisition_is_number_of_slices_and_spacing():
    np.testing.assert_array_equal(study_features(record()).acquisition, [41, 8, 0.75, 0.5])


def test_lung_density_by_hand():
    """Lungs of 18 slices of 24 x 13 pixels each, at -850 HU; a patch of 6 x 6 pixels at -450 in 9 slices of one."""
    features = study_features(record())
    assert features.mean_lung_hu == -850
    assert features.dense_share == 0
    volume, *_ = chest(range(6, 15))
    lungs, patch = 18 * 24 * 13 * 2, 9 * 6 * 6
    diseased = study_features(record(volume))
    assert diseased.dense_share == pytest.approx(patch / lungs, rel=0.02)
    assert diseased.mean_lung_hu == pytest.approx(-850 + 400 * patch / lungs, abs=1)


def test_a_voxel_outside_of_the_thorax_changes_its_cell_and_one_inside_changes_none():
    plain = chest().volume
    unmarked = study_features(record()).outside.reshape(3, CELLS, CELLS)
    marked = plain.copy()
    marked[3, 0, 46] = 1500  # a corner far from the lungs, so that these are found as before
    region = lung_region(plain, (8.0, 6.0, 6.0))
    assert region is not None
    inner = plain.copy()
    inner[8:12, 20, 24] = 1500  # between the lungs
    assert region.thorax[20, 24]
    found = study_features(record(marked)).outside.reshape(3, CELLS, CELLS)
    expected = unmarked.copy()
    expected[1, 0, -1] = 1500
    expected[2, 0, -1] += 2500 / (24 * 6 * 6)
    assert unmarked[1, 0, -1] == -1000
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(study_features(record(inner)).outside.reshape(3, CELLS, CELLS), unmarked)


def test_pooling_equals_numpy_on_each_cell():
    plain = chest().volume
    volume = (plain + np.random.default_rng(0).integers(-40, 40, plain.shape)).clip(-1024, 1500).astype(np.int16)
    region = lung_region(volume, (8.0, 6.0, 6.0))
    assert region is not None
    outside = np.broadcast_to(~region.thorax, volume.shape)
    found = study_features(record(volume)).outside.reshape(3, CELLS, CELLS)
    defined = 0
    for row in range(CELLS):
        for column in range(CELLS):
            cell = np.s_[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
            values = volume[cell][outside[cell]]
            expected = [values.min(), values.max(), values.mean()] if values.size else [np.nan] * 3
            np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-5)
            defined += bool(values.size)
    assert 0 < defined < CELLS * CELLS


def test_a_volume_without_lungs_has_no_density_and_no_outside():
    features = study_features(record(np.full((24, 48, 48), 40, np.int16)))
    assert np.isnan(features.mean_lung_hu)
    assert np.isnan(features.dense_share)
    assert np.isnan(features.outside).all()
    assert features.acquisition[0] == 41


def test_several_studies_are_in_the_order_of_the_rows():
    records = [record(chest(range(number))[0], slices=30 + number) for number in range(6)]
    rows = np.array([4, 1, 5])
    found = features_of(records, rows, "Measuring")
    np.testing.assert_array_equal(found.acquisition[:, 0], [34, 31, 35])
    for place, row in enumerate(rows):
        for several, one in zip(found, study_features(records[row]), strict=True):
            np.testing.assert_array_equal(several[place], one)
