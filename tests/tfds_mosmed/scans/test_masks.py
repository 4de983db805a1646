"""Masks of lesions, and masks that are given as studies."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tests.support.chest import chest, las_affine, to_las, write_nifti
from tests.support.nifti_files import moved
from tests.support.refusals import assert_one_line
from tfds_mosmed.scans.read import read_mask, read_scan
from tfds_mosmed.scans.scan import ScanError


def test_reads_a_mask_over_its_study(tmp_path):
    hu = chest()
    scan = read_scan(write_nifti(tmp_path / "study.nii.gz", hu))
    mask = read_mask(write_nifti(tmp_path / "mask.nii.gz", (hu > 300).astype(np.uint8)), scan)
    np.testing.assert_array_equal(mask, hu > 300)
    rounded = np.where(hu > 400, 0.99999, 1) * (hu > 300)
    np.testing.assert_array_equal(read_mask(write_nifti(tmp_path / "rounded.nii", rounded), scan), hu > 300)
    with pytest.raises(ScanError) as error:
        read_mask(write_nifti(tmp_path / "other.nii.gz", np.ones((20, 30, 30), np.uint8)), scan)
    assert_one_line(error, tmp_path / "other.nii.gz", "the study's own mask")


def masked_study(tmp_path):
    hu = chest()
    return read_scan(write_nifti(tmp_path / "study.nii.gz", hu)), to_las((hu > 300).astype(np.uint8))


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.eye(4), "an identity affine"),
        (np.diag([-1, -1, 1, 1]), "an identity affine"),
        (moved(las_affine(), 0, 0, 40), "40 mm away"),
        (np.diag([-2, 2, 8, 1]), "mm away"),
        (np.diag([4, 4, 8, 1]), "mm away"),
    ],
)
def test_refuses_a_mask_whose_affine_is_not_the_studys(tmp_path, affine, words):
    scan, mask = masked_study(tmp_path)
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    with pytest.raises(ScanError) as error:
        read_mask(tmp_path / "mask.nii.gz", scan)
    assert_one_line(error, tmp_path / "mask.nii.gz", words, "study's own affine")


def test_a_mask_stored_in_other_axes_is_placed_by_its_affine(tmp_path):
    scan, mask = masked_study(tmp_path)
    image = nib.Nifti1Image(mask, moved(las_affine(), 0.5, -0.5, 1.0))
    for axes in ("RAS", "PSL", "SAR"):
        nib.save(
            image.as_reoriented(
                nib.orientations.ornt_transform(
                    nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes))
                )
            ),
            tmp_path / "mask.nii",
        )
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii", scan), chest() > 300)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (chest() < -950, "outside of the body"),
        (chest() > -300, "39% of the volume"),
        ((chest() > -950) & (chest() < -700), "aerated lung"),
        ((chest() > -950) * 1 + (chest() > 300), "several labels (1, 2)"),
        (chest().clip(0, 255), "several labels (1, 2, 3"),
        ((chest() > 300) * np.linspace(0.1, 1, 96), "a mask of values between 0."),
        (ndimage.gaussian_filter((chest() > 300) * 1.0, 1), "as of probabilities or of interpolation"),
        (chest() > -1100, "of the volume"),
        (chest(), "values below 0"),
        (np.full(chest().shape, np.nan, np.float32), "NaN"),
    ],
)
def test_refuses_what_cannot_be_a_mask_of_lesions(tmp_path, mask, words):
    if words == "outside of the body":
        mask[:, 10:] = False  # air in front of the body
    scan, _ = masked_study(tmp_path)
    path = write_nifti(tmp_path / "mask.nii.gz", mask.astype(np.float32))
    with pytest.raises(ScanError) as error:
        read_mask(path, scan)
    assert_one_line(error, path, words, "mask")


@pytest.mark.parametrize("mask", [chest() > 0, (chest() > 0) * 255, (chest() > 0) + (chest() > 300) * 2.0])
def test_a_mask_given_as_a_study_is_called_that(tmp_path, mask):
    path = write_nifti(tmp_path / "study.nii.gz", mask.astype(np.float32 if mask.dtype == float else np.uint8))
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, "it is a mask, not a CT", "give the CT")


@pytest.mark.parametrize(("stored", "slope", "intercept"), [(255, 1 / 255, 0), (1, 1, 0), (3, 0, 7)])
def test_a_mask_is_scaled_as_its_header_says(tmp_path, stored, slope, intercept):
    scan, mask = masked_study(tmp_path)
    content = bytearray(nib.Nifti1Image(mask * np.uint8(stored), las_affine()).to_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    (tmp_path / "mask.nii").write_bytes(content)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii", scan), chest() > 300)
    content[112:120] = np.array([1, 1], "<f4").tobytes()
    (tmp_path / "mask.nii").write_bytes(content)
    with pytest.raises(ScanError, match="mask"):
        read_mask(tmp_path / "mask.nii", scan)
