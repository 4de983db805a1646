"""Files of one study in different formats yield the same prepared volume."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from covidscan.prediction.reading import Reading, readings
from tests.support import real_ct
from tests.support.chest import chest, las_affine, to_las, write_nifti, write_series
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.scans.find import find_studies

GRID = Grid.parse("32x32x16")
SHAPE, SPACING_MM = (14, 40, 48), (16.0, 8.0, 8.0)
HU = chest(shape=SHAPE, spacing=SPACING_MM)


def read(*paths, grid=GRID) -> list[Reading]:
    with readings(find_studies([str(path) for path in paths]), grid, workers=2) as results:
        found = list(results)
    assert all(isinstance(one, Reading) for one in found), found
    return found  # type: ignore[return-value]


def assert_same_volume(one: Reading, other: Reading):
    np.testing.assert_array_equal(one.prepared.volume, other.prepared.volume)
    assert one.prepared.lungs_found
    assert one.prepared.spacing_mm == other.prepared.spacing_mm
    assert one.prepared.box == other.prepared.box
    assert one.prepared.warnings == other.prepared.warnings == ()


def test_all_48_orders_of_the_stored_axes(tmp_path):
    for number, (order, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3))
    ):
        voxels, affine = to_las(HU).transpose(order), las_affine(SPACING_MM)[:, [*order, 3]]
        for axis in np.flatnonzero(flips):
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
            voxels = np.flip(voxels, axis)
        nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), affine), tmp_path / f"{number}.nii")
    first, *others = read(tmp_path)
    assert len(others) == 47
    for other in others:
        assert_same_volume(first, other)


def test_translation_and_units(tmp_path):
    def write(name, affine, unit):
        image = nib.Nifti1Image(to_las(HU), affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / name)

    moved, metres = las_affine(SPACING_MM), las_affine(SPACING_MM)
    moved[:3, 3] = (-181.3, 220.7, -1055.1)
    metres[:3] /= 1000
    write("a.nii", las_affine(SPACING_MM), "mm")
    write("b.nii", moved, "mm")
    write("c.nii.gz", metres, "meter")
    first, second, third = read(tmp_path)
    assert_same_volume(first, second)
    np.testing.assert_array_equal(first.prepared.volume, third.prepared.volume)
    assert third.prepared.spacing_mm == pytest.approx(first.prepared.spacing_mm)


def test_dicom_in_any_order_of_files_and_frames(tmp_path):
    from tests.support.dicom_files import write_multi_frame

    names = [[f"{index:02d}" for index in order] for order in (range(14), reversed(range(14)))]
    for folder, order in zip(("a", "b"), names, strict=True):
        write_series(tmp_path / folder, HU, order, spacing=SPACING_MM)
    write_multi_frame(tmp_path / "c.dcm", HU, spacing=SPACING_MM, order=np.arange(14)[::-1])
    write_nifti(tmp_path / "d.nii.gz", HU, SPACING_MM)
    first, *others = read(*(tmp_path / name for name in ("a", "b", "c.dcm", "d.nii.gz")))
    for other in others:
        assert_same_volume(first, other)


@real_ct.needed
@pytest.mark.parametrize("grid", ["128x128x32", "64x64x32_full"])
def test_real_series_and_its_nifti(grid):
    root = real_ct.FOLDER
    dicom, nifti = read(root / "dicom/P001", root / "nifti/covid/P001.nii.gz", grid=Grid.parse(grid))
    np.testing.assert_array_equal(dicom.prepared.volume, nifti.prepared.volume)
    assert dicom.prepared.box == nifti.prepared.box
    assert dicom.prepared.spacing_mm == pytest.approx(nifti.prepared.spacing_mm)
