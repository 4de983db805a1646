"""Values that are not in HU, blank and repeated parts, and lengths that no chest has."""

import nibabel as nib
import numpy as np
import pytest

from tests.support.chest import chest, las_affine, to_las, write_nifti
from tests.support.refusals import assert_one_line
from tfds_mosmed.scans.nifti import read_nifti
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import NotHounsfieldError


def outside_circle(hu: np.ndarray, value: int) -> np.ndarray:
    y, x = (np.linspace(-1, 1, size) for size in hu.shape[1:])
    return np.where(y[:, None] ** 2 + x**2 > 1, value, hu).astype(np.int16)


def one_metal_voxel(hu: np.ndarray) -> np.ndarray:
    hu[14, 40, 40] = 3071
    return hu


@pytest.mark.parametrize(
    "hu",
    [
        outside_circle(chest() + 1024, -2000),
        outside_circle(chest() + 1000, -1024),
        outside_circle(chest() + 1024, -32768),
        one_metal_voxel(chest() - 1024),
        one_metal_voxel(chest().clip(-1000) - 1000),
        outside_circle(one_metal_voxel(chest() - 1024), -3024),
        one_metal_voxel(chest() // 4),
        one_metal_voxel(np.full_like(chest(), -1000)),
    ],
)
def test_values_are_judged_without_padding_and_single_voxels(tmp_path, hu):
    path = write_nifti(tmp_path / "study.nii.gz", hu)
    with pytest.raises(NotHounsfieldError) as error:
        read_scan(path)
    assert_one_line(error, path, "not in Hounsfield units")


@pytest.mark.parametrize("padding", [-1024, -1000, -2000, -2048, -3024, -32768])
def test_padding_outside_of_a_circle_is_usual(padding):
    hu = one_metal_voxel(outside_circle(chest(), padding))
    assert read_nifti(nib.Nifti1Image(to_las(hu), las_affine()).to_bytes(), "study").warnings == ()


@pytest.mark.parametrize(
    "hu", [chest() - 200, 2 * chest(), 2 * chest() + 100, chest() - 130], ids=["-200", "x2", "x2+100", "-130"]
)
@pytest.mark.parametrize("padding", [None, -2000, -3024])
def test_air_that_varies_below_minus_1100_is_not_in_hu(hu, padding):
    hu = hu if padding is None else outside_circle(hu, padding)
    with pytest.raises(NotHounsfieldError, match="not in Hounsfield units"):
        read_nifti(nib.Nifti1Image(to_las(hu), las_affine()).to_bytes(), "study")


def test_noise_of_sharp_kernels_is_in_hu():
    noisy = chest() + np.random.default_rng(0).normal(0, 100, chest().shape)
    assert read_nifti(nib.Nifti1Image(to_las(noisy.astype(np.int16)), las_affine()).to_bytes(), "study").warnings == ()


def blank(hu: np.ndarray, place: object, value: int) -> np.ndarray:
    hu[place] = value
    return hu


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (blank(chest(), np.s_[12:16], -1024), "4 of 28 slices hold one value only"),
        (blank(chest(), np.s_[20:], 0), "8 of 28 slices hold one value only"),
        (blank(chest(), np.s_[0], -3024), "1 of 28 slices hold one value only"),
        (blank(chest(), np.s_[:, :, :48], -1024), "50% of the columns hold one value only"),
        (blank(chest(), np.s_[:, 50:], -2000), "38% of the rows hold one value only"),
        (chest()[[*range(14), 13, 13, *range(16, 28)]], "2 of 28 slices repeat the one below them"),
        (np.rint(chest().clip(-1350, 150) / 6) * 6, "different values only: it seems to have been windowed to 8 bits"),
        (chest().clip(-1024, 50), "all above 50 HU is cut off: it seems to have been windowed"),
        (outside_circle(chest(), 0), "outside of the field of view all is 0 HU"),
        (outside_circle(chest(), 100), "outside of the field of view all is 100 HU"),
    ],
)
def test_warns_of_blank_and_repeated_parts(hu, words):
    warnings = read_nifti(nib.Nifti1Image(to_las(hu), las_affine()).to_bytes(), "study").warnings
    assert any(words in line for line in warnings)


def test_warns_of_a_second_scan_appended_along_z(tmp_path):
    hu = np.concatenate([chest(0), chest(1), chest(2)])
    scan = read_scan(write_nifti(tmp_path / "study.nii.gz", hu))
    assert "672 mm long, longer than a chest" in scan.warnings[0]


@pytest.mark.parametrize("offset", [-60, 60, 120, 200])
def test_warns_of_air_that_is_somewhat_off(offset):
    image = nib.Nifti1Image(to_las(chest() + np.int16(offset)), las_affine())
    (warning,) = read_nifti(image.to_bytes(), "study").warnings
    assert "instead of -1000: check the rescale slope and intercept" in warning


@pytest.mark.parametrize("offset", [-20, 20])
def test_air_of_a_scanner_that_is_a_little_off_is_usual(offset):
    image = nib.Nifti1Image(to_las(chest() + np.int16(offset)), las_affine())
    assert read_nifti(image.to_bytes(), "study").warnings == ()


@pytest.mark.parametrize("spacing", [(0.8, 0.4, 0.4), (8, 0.8, 0.8), (8, 10, 10), (1, 4, 4)])
def test_warns_of_a_field_of_view_that_is_none_of_a_chest(spacing):
    (warning,) = read_nifti(nib.Nifti1Image(to_las(chest()), las_affine(spacing)).to_bytes(), "study").warnings
    assert "mm, unlike a chest: check its spacing" in warning


def implant(hu: np.ndarray) -> np.ndarray:
    """Add metal of up to 9000 HU with soft edges in the shoulder, in the middle slices."""
    y, x = (np.arange(size) for size in hu.shape[1:])
    hu = hu.astype(int)
    hu[10:18] += np.rint(9000 * np.exp(-((y[:, None] - 40) ** 2 + (x - 12) ** 2) / 18)).astype(int)
    return hu


def noisy_air(hu: np.ndarray) -> np.ndarray:
    return np.where(hu < -900, hu + np.rint(np.random.default_rng(0).normal(0, 10, hu.shape)), hu).astype(int)


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        ((implant(chest()) + 1024) % 4096 - 1024, "those of metal or bone seem to have wrapped around"),
        ((implant(chest()) + 2048) % 4096 - 2048, "those of metal or bone seem to have wrapped around"),
        ((noisy_air(chest().clip(-1015)) + 1024) % 4096 - 1024, "values below the lowest that was stored"),
        ((noisy_air(chest().clip(-1015)) + 1024) % 65536 - 1024, "values below the lowest that was stored"),
        ((implant(chest()) + 1024) % 2048 - 1024, "pixels amid bone are as dark as air"),
        ((noisy_air(chest().clip(-1015)) + 1024) % 2048 - 1024, "values below the lowest that was stored"),
        (implant(chest()).clip(-1024, 1023), ""),
        (implant(chest()).clip(-1024, 3071), ""),
        (implant(chest()), ""),
        (noisy_air(chest()), ""),
    ],
)
def test_warns_of_values_that_wrapped_around(hu, words):
    voxels = hu.clip(-32768, 32767).astype(np.int16)
    warnings = read_nifti(nib.Nifti1Image(to_las(voxels), las_affine()).to_bytes(), "study").warnings
    assert [words in line for line in warnings] == [True] * bool(words)
