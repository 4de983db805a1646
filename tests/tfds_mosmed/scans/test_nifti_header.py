"""Headers of NIfTI files: forms, distances, units and sizes that contradict each other."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from tests.support.chest import SPACING_MM, chest, las_affine, to_las, write_nifti
from tests.support.nifti_files import SROW, moved, patched
from tests.support.refusals import assert_one_line
from tfds_mosmed.scans.nifti import read_nifti
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError


@pytest.mark.parametrize("diagonal", [(1, 1, 1), (-1, -1, 1)])
def test_warns_of_an_identity_affine(diagonal):
    """SimpleITK writes the second one for an array of its own."""
    image = nib.Nifti1Image(to_las(chest()), np.diag([*diagonal, 1]))
    assert "identity affine" in read_nifti(image.to_bytes(), "study").warnings[0]
    image = nib.Nifti1Image(to_las(chest()), moved(np.diag([*diagonal, 1]), -100, 20, 300))  # resampled to 1 mm
    warnings = read_nifti(image.to_bytes(), "study").warnings
    assert not [warning for warning in warnings if "identity" in warning]


def with_forms(sform, qform=None, pixdim=None):
    """Return a file with an sform and a qform, None for none, and other distances of voxels."""
    image = nib.Nifti1Image(to_las(chest()), None)
    if qform is not None:
        image.set_qform(qform, 1)
    image.set_sform(sform, 0 if sform is None else 1)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    elif qform is None:
        image.header["pixdim"][1:4] = np.linalg.norm(sform[:3, :3], axis=0)
    return image.to_bytes()


def test_sform_and_qform_that_fit_are_read_without_a_warning():
    for sform, qform in ((las_affine(), None), (None, las_affine()), (las_affine(), moved(las_affine(), 30, 0, -9))):
        scan = read_nifti(with_forms(sform, qform), "study")
        np.testing.assert_array_equal(scan.hu, chest())
        assert (scan.spacing_mm, scan.warnings) == (SPACING_MM, ())


@pytest.mark.parametrize("identity", [np.eye(4), np.diag([-1.0, -1, 1, 1])])
def test_an_identity_beside_a_good_qform_is_not_used(identity):
    scan = read_nifti(with_forms(identity, las_affine()), "study")
    np.testing.assert_array_equal(scan.hu, chest())
    assert (scan.spacing_mm, scan.warnings) == (SPACING_MM, ("its sform is an identity: read by its qform",))


def test_nan_in_the_sform_beside_a_good_qform_is_not_used():
    content = bytearray(with_forms(las_affine(), las_affine()))
    content[SROW : SROW + 16] = np.full(4, np.nan, "<f4").tobytes()
    np.testing.assert_array_equal(read_nifti(bytes(content), "study").hu, chest())


@pytest.mark.parametrize("flip", [(1, 1, -1), (-1, 1, 1), (1, -1, 1)])
def test_warns_of_sform_and_qform_that_disagree(flip):
    other = las_affine() @ np.diag([*flip, 1])
    for sform, qform in ((las_affine(), other), (other, las_affine())):
        warnings = read_nifti(with_forms(sform, qform), "study").warnings
        assert any("sform and qform have different directions: read by the sform" in line for line in warnings)


@pytest.mark.parametrize("pixdim", [(1, 1, 1), (0, 0, 0), (4, 4, 11.2), (4.5, 4, 8), (4, 4, np.nan)])
def test_distances_that_contradict_the_affine_are_told(pixdim):
    scan = read_nifti(with_forms(las_affine(), None, pixdim), "study")
    np.testing.assert_array_equal(scan.hu, chest())
    assert scan.spacing_mm == SPACING_MM
    shown = " x ".join(f"{step:.4g}" for step in pixdim)
    assert scan.warnings == (f"its voxels are 4 x 4 x 8 by its affine and {shown} by pixdim: read by the affine",)


def test_a_qfac_of_0_is_1():
    content = bytearray(with_forms(None, las_affine()))
    assert np.frombuffer(content[76:80], "<f4") == -1
    content[76:80] = bytes(4)
    scan = read_nifti(bytes(content), "study")  # then the slices run the other way
    np.testing.assert_array_equal(scan.hu, chest()[::-1])
    assert scan.warnings == ()


@pytest.mark.parametrize("axes", [3, 4, 5])
def test_a_size_of_0_beyond_the_third_axis_is_1(axes):
    content = patched(40, np.array([axes, 96, 80, 28, 0, 0], "<i2").tobytes())
    np.testing.assert_array_equal(read_nifti(content, "study").hu, chest())


@pytest.mark.parametrize(("code", "name"), [(3, "micrometres"), (1, "metres")])
def test_millimetres_with_another_code_are_read_with_a_warning(code, name):
    scan = read_nifti(patched(123, bytes([code])), "study")
    assert scan.spacing_mm == SPACING_MM
    assert scan.warnings == (f"declares its voxels of 4 x 4 x 8 in {name}: read as millimetres",)
    right = nib.Nifti1Image(to_las(chest()), las_affine() * [*[{1: 1e-3, 3: 1e3}[code]] * 3, 1])
    right.header.set_xyzt_units(code)
    scan = read_nifti(right.to_bytes(), "study")
    assert (scan.spacing_mm, scan.warnings) == (pytest.approx(SPACING_MM), ())


def test_refuses_voxels_too_small_for_ct(tmp_path):
    path = write_nifti(tmp_path / "study.nii.gz", chest(), (0.008, 0.004, 0.004))
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, "0.004 x 0.004 x 0.008 mm", "set its spacing")


OFFSET, FLAG = 108, 348  # of vox_offset and of the extensions' flag


def with_extensions(*texts):
    image = nib.Nifti1Image(to_las(chest()), las_affine())
    for text in texts:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, text))  # type: ignore[attr-defined]
    return image.to_bytes()


def changed(content, *, offset=None, flag=None, gap=b"", end=b""):
    """Return a file with another vox_offset or flag, with bytes before the voxels and at the end."""
    begin = int(np.frombuffer(content[OFFSET : OFFSET + 4], "<f4")[0])
    content = bytearray(content[:begin] + gap + content[begin:] + end)
    if offset is not None:
        content[OFFSET : OFFSET + 4] = np.array([offset], "<f4").tobytes()
    if flag is not None:
        content[FLAG] = flag
    return bytes(content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "content",
    [
        changed(with_extensions(), offset=354, end=bytes(2)),
        changed(with_extensions(), offset=353, end=bytes(20)),
        changed(with_extensions(), offset=368, end=bytes(16)),
        changed(with_extensions(b"a" * 500), offset=352),
        changed(with_extensions(b"a", b"b"), offset=368),
    ],
    ids=["2-late", "1-late", "16-late", "at-the-extension", "at-the-second-extension"],
)
def test_warns_of_an_offset_that_shifts_the_voxels(content, pack):
    try:
        warnings = read_nifti(pack(content), "study").warnings
    except ScanError as error:
        warnings = (str(error),)
    assert any("by vox_offset" in line or "not in Hounsfield units" in line for line in warnings)


@pytest.mark.parametrize(
    "content",
    [
        with_extensions(b"a" * 500, b"b"),
        changed(with_extensions(), offset=0),
        changed(with_extensions(), offset=384, gap=bytes(32), end=bytes(7)),
        changed(with_extensions(), flag=1),
        nib.Nifti2Image(to_las(chest()), las_affine()).to_bytes(),
    ],
    ids=["extensions", "zero", "gap", "flag", "nifti2"],
)
def test_voxels_after_extensions_or_a_gap_are_read_without_a_warning(content):
    scan = read_nifti(content, "study")
    np.testing.assert_array_equal(scan.hu, chest())
    assert scan.warnings == ()
