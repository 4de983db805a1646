"""Two scans that are mixed slice by slice, and scans that are not."""

import numpy as np
import pytest
from scipy import ndimage

from tests.support import real_ct
from tests.support.chest import chest, dicom_slice, write_nifti
from tfds_mosmed.ct_phantom.generator import make_phantom
from tfds_mosmed.scans.mixed_slices import (
    count_jumps,
    find_exchanged_slices,
    find_mixed_slices,
    find_shear,
    find_translation,
)
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError, scan_of_array

HU = chest()


def enhanced(hu, amount=130):
    """Add contrast agent to what lies between the lungs."""
    _, y, x = np.indices(hu.shape)
    heart = (abs(x / hu.shape[2] - 0.5) < 0.06) & (abs(y / hu.shape[1] - 0.45) < 0.1) & (hu > -100)
    return np.where(heart, hu + amount, hu).astype(np.int16)


def sharp(hu):
    return (hu + np.random.default_rng(1).normal(0, 45, hu.shape)).astype(np.int16)


def breathed(hu):
    return np.roll(hu, (3, 2), (0, 1))


def mix(one, other):
    mixed = np.empty((2 * len(one), *one.shape[1:]), np.int16)
    mixed[::2], mixed[1::2] = one, other
    return mixed


@pytest.mark.parametrize("change", [enhanced, sharp, breathed, lambda hu: hu + 40], ids=lambda one: one.__name__)
def test_two_scans_that_their_headers_do_not_part_are_refused(tmp_path, change):
    names = np.random.default_rng(0).permutation(2 * len(HU))
    for index, plane in enumerate(HU):
        dicom_slice(plane, index).save_as(tmp_path / f"{names[index]}.dcm", enforce_file_format=True)
    for index, plane in enumerate(change(chest(1)), len(HU)):
        header = dicom_slice(plane, index - len(HU) + 0.5)
        header.save_as(tmp_path / f"{names[index]}.dcm", enforce_file_format=True)
    with pytest.raises(ScanError, match="two scans mixed slice by slice: every other slice differs in") as error:
        read_scan(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", [enhanced, sharp], ids=lambda one: one.__name__)
def test_mixed_phantoms_are_refused_in_a_nifti_file_too(tmp_path, seed, change):
    phantom = make_phantom(seed, "CT-1", 96)
    one, other = phantom.hu, change(phantom.hu)
    assert find_mixed_slices(one) is find_mixed_slices(other) is None
    mixed = one.copy()
    mixed[1::2] = other[1::2]
    with pytest.raises(ScanError, match="mixed slice by slice"):
        read_scan(write_nifti(tmp_path / "a.nii.gz", mixed, phantom.spacing_mm))


@pytest.mark.parametrize("seed", range(3))
def test_three_scans_mixed_slice_by_slice_are_found(seed):
    hu = make_phantom(seed, "CT-1", 96).hu
    mixed = np.repeat(hu, 3, axis=0)
    mixed[1::3] += 30
    mixed[2::3] += 15
    assert find_mixed_slices(mixed) is not None


def test_two_halves_of_one_thin_scan_are_one_scan():
    assert find_mixed_slices(mix(chest(0), chest(1))) is None
    assert find_mixed_slices(np.repeat(HU, 2, axis=0)) is None


def test_few_slices_are_not_judged():
    assert find_mixed_slices(mix(HU[:8], HU[:8] + 40)) is None
    assert find_mixed_slices(np.full((40, 60, 60), -1000, np.int16)) is None


def resampled(hu):
    """Yield a volume on other slices, as programs interpolate them."""
    hu = hu[:, :: max(1, hu.shape[1] // 96), :: max(1, hu.shape[2] // 96)].astype(np.float32)
    for zoom, order in ((2, 0), (2, 1), (3, 1), (1.5, 1), (2, 3)):
        yield np.rint(ndimage.zoom(hu, (zoom, 1, 1), order=order)).astype(np.int16)


@pytest.mark.parametrize("seed", range(6))
def test_phantoms_are_one_scan_also_resampled(seed):
    hu = make_phantom(seed, ("CT-0", "CT-2", "CT-4")[seed % 3], 128).hu
    for one in (hu, hu[::2], np.repeat(hu, 3, axis=0), *resampled(hu)):
        assert (find_mixed_slices(one), count_jumps(one)) == (None, 0)


@real_ct.needed
def test_real_studies_are_one_scan_also_resampled():
    paths = [*sorted(real_ct.FOLDER.rglob("*.nii.gz")), real_ct.FOLDER / "dicom/P001"]
    assert len(paths) > 2
    for path in paths:
        scan = read_scan(path)
        hu, slice_mm = scan.hu, scan.spacing_mm[0]
        for one in (hu, hu[::2], *resampled(hu)):
            assert (find_mixed_slices(one), count_jumps(one), find_exchanged_slices(one)) == (None, 0, None), path
        assert find_translation(hu, slice_mm) is find_translation(hu[::2], 2 * slice_mm) is None, path
        assert find_shear(hu) == find_shear(hu[:, ::2]) == 0, path


@real_ct.needed
def test_two_real_studies_mixed_are_found():
    one, other = (read_scan(real_ct.FOLDER / f"nifti/{name}.nii.gz").hu[:36] for name in ("covid/P001", "cap/cap001"))
    assert find_mixed_slices(mix(one, other)) is not None


@pytest.mark.parametrize("seed", range(4))
def test_a_second_scan_or_a_slice_of_another_place_is_told(tmp_path, seed):
    one, other = make_phantom(seed, "CT-1", 96), make_phantom(seed + 20, "CT-0", 96)
    swapped = one.hu.copy()
    swapped[9] = one.hu[-9]
    for hu, places in ((np.concatenate([one.hu[:22], other.hu[-15:]]), 1), (swapped, 2)):
        warnings = read_scan(write_nifti(tmp_path / "a.nii.gz", hu, one.spacing_mm)).warnings
        assert any(f"slices do not continue each other at {places} places" in line for line in warnings)


@pytest.mark.parametrize(("first", "second"), [(9, 10), (14, 15), (12, 18)])
def test_two_slices_that_are_exchanged_are_told(tmp_path, phantom, first, second):
    hu = phantom.hu.copy()
    hu[[first, second]] = hu[[second, first]]
    warnings = read_scan(write_nifti(tmp_path / "a.nii.gz", hu, phantom.spacing_mm)).warnings
    assert (
        f"slices {first + 1} and {second + 1} of {len(hu)} seem to be exchanged: check that they are in order"
        in warnings
    )


@real_ct.needed
def test_two_slices_of_a_real_study_that_are_exchanged_are_found():
    hu = read_scan(real_ct.FOLDER / "nifti/normal/normal001.nii.gz").hu
    for first, second in ((9, 10), (20, 21), (16, 24)):
        exchanged = hu.copy()
        exchanged[[first, second]] = hu[[second, first]]
        assert find_exchanged_slices(exchanged) == (first, second)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, "CT-1", 96)


@pytest.mark.parametrize("moved", [2, -5, 30])
def test_voxels_that_were_inserted_or_lost_are_told(phantom, moved):
    hu, middle = phantom.hu.copy(), len(phantom.hu) // 2
    hu[middle:] = np.roll(hu[middle:], moved)
    side = f"{abs(moved)} pixels to the {'left' if moved > 0 else 'right'}"
    begin = f"from slice {middle + 1} of {len(hu)} on it is moved by {side}: check that no bytes were lost or inserted"
    assert any(line.startswith(begin) for line in scan_of_array(hu, phantom.spacing_mm).warnings)


@pytest.mark.parametrize(("axis", "direction"), [(1, "back"), (2, "left")])
def test_a_patient_who_moved_between_two_parts_of_a_scan_is_told(phantom, axis, direction):
    hu, middle = phantom.hu.copy(), len(phantom.hu) // 2
    hu[middle:] = np.roll(hu[middle:], 2, axis)
    assert find_translation(phantom.hu, phantom.spacing_mm[0]) is None
    assert find_translation(hu, phantom.spacing_mm[0]) == (middle, direction, 2)


@pytest.mark.parametrize("num_lost", [1, 2, 17])
def test_numbers_of_rows_and_columns_that_are_exchanged_are_told(phantom, num_lost):
    hu = phantom.hu[:, :, num_lost:]
    assert find_shear(hu) == 0
    with pytest.raises(ScanError, match=f"each of its rows is moved by -?{num_lost} pixels against the one before"):
        scan_of_array(hu.reshape(len(hu), hu.shape[2], hu.shape[1]), phantom.spacing_mm)
