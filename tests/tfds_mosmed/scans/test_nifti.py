import bz2
import dataclasses
import gzip
import itertools
import os
import resource

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chest import SPACING_MM, chest, las_affine, to_las, write_nifti
from tests.support.nifti_files import PIXDIM, SFORM_CODE, SROW, patched
from tests.support.refusals import assert_one_line, assert_refused
from tfds_mosmed.scans.nifti import read_nifti
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError

NRRD = b"NRRD0004\n# Complete NRRD file format specification\ntype: short\ndimension: 3\n"
META_IMAGE = b"ObjectType = Image\nNDims = 3\nBinaryData = True\n"


def test_reads_a_mosmed_like_file(tmp_path):
    hu = chest()
    scan = read_scan(write_nifti(tmp_path / "study.nii.gz", hu))
    np.testing.assert_array_equal(scan.hu, hu)
    assert scan.hu.dtype == np.int16
    assert scan.spacing_mm == SPACING_MM
    assert scan.warnings == ()


SMALL = chest(shape=(12, 18, 20), spacing=(16.0, 18.0, 19.0))
SMALL_SPACING = (16.0, 18.0, 19.0)


@given(
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    flips=st.tuples(*[st.booleans()] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_any_order_of_stored_axes_gives_the_same_scan(order, flips, origin):
    """The affine is permuted and flipped with the voxels by hand."""
    stored, affine = to_las(SMALL), las_affine(SMALL_SPACING)
    affine[:3, 3] = origin
    corners = affine.copy()
    voxels = stored.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
            voxels = np.flip(voxels, axis)
    scan = read_nifti(nib.Nifti1Image(np.ascontiguousarray(voxels), affine).to_bytes(), "study")
    np.testing.assert_array_equal(scan.hu, SMALL)
    assert scan.spacing_mm == pytest.approx(SMALL_SPACING)
    # The first voxel of the scan (lowest, front, right) lies where it lay in the file.
    first = corners @ [0, stored.shape[1] - 1, 0, 1]
    np.testing.assert_allclose(scan.affine @ [0, 0, 0, 1], first, atol=1e-3)
    last = corners @ [stored.shape[0] - 1, 0, stored.shape[2] - 1, 1]
    np.testing.assert_allclose(scan.affine @ [11, 17, 19, 1], last, atol=1e-3)


def test_applies_slope_and_intercept(tmp_path):
    hu = chest()
    image = nib.Nifti1Image(to_las(((hu.astype(int) + 1024) // 2).astype(np.uint16)), las_affine())
    image.header.set_slope_inter(2, -1024)
    path = tmp_path / "scaled.nii"
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([2, -1024], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    np.testing.assert_array_equal(read_scan(path).hu, (hu.astype(int) + 1024) // 2 * 2 - 1024)


@pytest.mark.parametrize("dtype", [">i2", "<f4", ">f8", "<i4", "<u2"])
def test_reads_other_types_of_voxels(tmp_path, dtype):
    hu = chest()
    shift = 1024 if np.dtype(dtype).kind == "u" else 0
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image((to_las(hu).astype(np.int32) + shift).astype(dtype), las_affine(), header)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([1, -shift], f"{dtype[0]}f4").tobytes()
    np.testing.assert_array_equal(read_nifti(bytes(content), "study").hu, hu)


def test_clips_values_beyond_int16(tmp_path):
    hu = float_chest()
    hu[0, 0, :2] = [1e6, -1e6]
    assert read_scan(write_nifti(tmp_path / "study.nii", hu)).hu[0, 0, :2].tolist() == [32767, -32768]


def test_reads_nifti2_and_trailing_axes_of_one(tmp_path):
    hu = chest()
    nifti2 = nib.Nifti2Image(to_las(hu), las_affine()).to_bytes()
    np.testing.assert_array_equal(read_nifti(nifti2, "study").hu, hu)
    four_axes = nib.Nifti1Image(to_las(hu)[..., None], las_affine()).to_bytes()
    np.testing.assert_array_equal(read_nifti(four_axes, "study").hu, hu)


def test_warns_of_an_oblique_study():
    angle = np.radians(12)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = read_nifti(nib.Nifti1Image(to_las(chest()), turn @ las_affine()).to_bytes(), "study")
    np.testing.assert_array_equal(scan.hu, chest())
    assert scan.warnings == ("oblique by 12 degrees: read as if its axes were the scanner's",)


def test_the_hash_depends_on_voxels_not_on_files(tmp_path):
    hu = chest()
    one = read_scan(write_nifti(tmp_path / "one.nii.gz", hu))
    other = read_nifti(
        nib.Nifti1Image(hu.transpose(2, 1, 0).astype(np.float32), np.diag([-4, -4, 8, 1])).to_bytes(), "x"
    )
    assert one.voxels_sha256() == other.voxels_sha256()
    reshaped = dataclasses.replace(one, hu=np.ascontiguousarray(hu).reshape(28, 96, 80))
    assert reshaped.voxels_sha256() != one.voxels_sha256()
    hu[0, 0, 0] += 1
    assert read_scan(write_nifti(tmp_path / "one.nii.gz", hu)).voxels_sha256() != one.voxels_sha256()


def float_chest() -> np.ndarray:
    return chest().astype(np.float32)


def unit_chest() -> np.ndarray:
    hu = float_chest()
    return (hu - hu.min()) / (hu.max() - hu.min())


def with_nan() -> np.ndarray:
    hu = float_chest()
    hu[3, 4, 5] = np.nan
    return hu


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (chest()[:7], ["7 axial slices", "at least 8", "whole chest"]),
        (with_nan(), ["NaN", "-1024"]),
        (np.full_like(chest(), -1000), ["-1000 in every voxel", "export"]),
        (unit_chest(), ["not in Hounsfield units", "0 to 1", "undo the windowing"]),
        ((unit_chest() * 255).astype(np.uint8), ["not in Hounsfield units", "undo the windowing"]),
        ((chest() + 1024).astype(np.uint16), ["not in Hounsfield units", "rescale intercept"]),
        (np.minimum(chest(), -600), ["not in Hounsfield units", "soft tissue"]),
        (np.where(chest() > 0, 32767, -32768).astype(np.int16), ["not in Hounsfield units"]),
    ],
    ids=["few-slices", "nan", "constant", "0-to-1", "0-to-255", "no-intercept", "no-tissue", "saturated"],
)
def test_refuses_volumes_that_are_not_a_chest_in_hu(tmp_path, volume, words):
    path = write_nifti(tmp_path / "study.nii.gz", volume)
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, *words)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 20, 3)])
def test_refuses_images_that_are_not_3d(tmp_path, shape):
    path = tmp_path / "study.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, f"{len(shape)}D", "one volume a file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty", "again"]),
        (b"not an image at all\n" * 40, ["not a NIfTI image"]),
        (b"short", ["not a NIfTI image"]),
        (gzip.compress(b"text"), ["not a NIfTI image"]),
        (gzip.compress(nib.Nifti1Image(to_las(chest()), las_affine()).to_bytes())[:-2000], ["cut short", "again"]),
        (gzip.compress(patched(0, b""))[:500], ["cut short", "again"]),
        (patched(0, b"")[:-100], ["too short for them", "again"]),
        (patched(PIXDIM, np.array([0], "<f4").tobytes(), SFORM_CODE, bytes(2)), ["voxels of 0 x 4 x 8 mm", "pixdim"]),
        (patched(PIXDIM, np.array([np.nan], "<f4").tobytes(), SFORM_CODE, bytes(2)), ["nan x 4 x 8 mm", "pixdim"]),
        (patched(SROW, np.array([np.nan] * 4, "<f4").tobytes()), ["NaN", "affine"]),
        (patched(SROW, np.array([0] * 12, "<f4").tobytes()), ["mm", "affine"]),
        (patched(42, np.array([-5], "<i2").tobytes()), ["not one 3D volume"]),
        (patched(70, np.array([128], "<i2").tobytes()), ["is a colour image"]),
        (patched(70, np.array([32], "<i2").tobytes()), ["complex64", "save it as int16"]),
        (patched(344, b"ni1\0"), ["voxels are in another file"]),
        (gzip.compress(gzip.compress(patched(0, b""))), ["compressed twice"]),
        (bz2.compress(patched(0, b"")), ["compressed with bzip2"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345678\n", ["git lfs pull"]),
        (b"\n <!DOCTYPE html><html>" + bytes(400), ["web page"]),
        (bytes(128) + b"DICM" + bytes(400), ["is a DICOM file"]),
        (NRRD, ["is an NRRD image", "save it as NIfTI"]),
        (gzip.compress(META_IMAGE), ["is a MetaImage", "save it as NIfTI"]),
        (b"\x93NUMPY\x01\0" + bytes(400), ["is a NumPy array"]),
        (b"\x89PNG\r\n\x1a\n", ["is a picture"]),
        (patched(70, np.array([77], "<i2").tobytes()), ["damaged header"]),
        (patched(108, np.array([1e30], "<f4").tobytes()), ["too short for them"]),
    ],
    ids=[
        "empty", "text", "short-text", "zipped-text", "truncated-gzip", "truncated-in-header", "truncated",
        "zero-spacing", "nan-spacing", "nan-affine", "zero-affine", "negative-size", "colour", "complex",
        "pair", "twice", "bzip2", "lfs", "html", "dicom", "nrrd", "metaimage", "numpy", "picture",
        "unknown-type", "offset",
    ],
)  # fmt: skip
def test_refuses_damaged_files(tmp_path, content, words):
    path = tmp_path / "study.nii.gz"
    path.write_bytes(content)
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, *words)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("size", "words"), [(600, "too short for them"), (30000, "more than the 1024 MiB")])
def test_refuses_a_header_that_declares_too_many_voxels_before_it_allocates(tmp_path, packed, size, words):
    """30000 cubed int16 are 54 TB; 600 cubed are 432 MB, under the limit, but not in so small a file."""
    content = patched(42, np.array([size] * 3, "<i2").tobytes())[:4000]
    path = tmp_path / "study.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, "declares", words)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_reads_all_members_of_a_gzip_file(tmp_path):
    """bgzip writes such files, or cat of two."""
    content = nib.Nifti1Image(to_las(chest()), las_affine()).to_bytes()
    path = tmp_path / "study.nii.gz"
    path.write_bytes(b"".join(gzip.compress(content[index : index + 3000]) for index in range(0, len(content), 3000)))
    np.testing.assert_array_equal(read_scan(path).hu, chest())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("sizes", "after", "is_told"),
    [((96, 80, 14), b"", True), ((96, 80, 28), to_las(chest()).tobytes("F"), True),
     ((96, 80, 28), b"a note", False), ((96, 80, 28), bytes(10**6), False)],
)  # fmt: skip
def test_voxels_beyond_those_that_the_header_declares_are_told(tmp_path, packed, sizes, after, is_told):
    content = patched(42, np.array(sizes, "<i2").tobytes()) + after
    path = tmp_path / "study.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    told = [line for line in read_scan(path).warnings if "goes on after its voxels for a slice or more" in line]
    assert len(told) == is_told


def test_the_checksum_detects_a_flipped_bit(tmp_path):
    """In a stored block, where nothing but the checksum can detect it."""
    content = bytearray(gzip.compress(nib.Nifti1Image(to_las(chest()), las_affine()).to_bytes(), 0))
    content[len(content) // 2] ^= 1
    path = tmp_path / "study.nii.gz"
    path.write_bytes(content)
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, "damaged", "again")


def test_decompresses_a_gzip_bomb_no_further_than_its_header_declares(tmp_path):
    path = tmp_path / "study.nii.gz"
    path.write_bytes(gzip.compress(patched(0, b"") + bytes(300_000_000), 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(read_scan(path).hu, chest())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("name", ["study", "study.gz", "study.img", "1.2.3"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_image_with_another_name_is_called_that(tmp_path, name, packed):
    content = patched(0, b"")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ScanError) as error:
        read_scan(tmp_path / name)
    assert_one_line(error, tmp_path / name, "is a NIfTI image by its content", "name it .nii")


@pytest.mark.parametrize("name", ["study.nrrd", "study.dcm", "study.nrrd.gz"])
@pytest.mark.parametrize(("content", "kind"), [(NRRD, "an NRRD image"), (META_IMAGE, "a MetaImage")])
def test_an_image_of_another_format_is_named_whatever_its_name_is(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert_refused(tmp_path / name, f"is {kind}", "by its content; save it as NIfTI")


def test_refuses_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(ScanError) as error:
        read_scan(tmp_path / "missing.nii.gz")
    assert_one_line(error, tmp_path / "missing.nii.gz", "No such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_refuses_a_file_without_permission(tmp_path):
    path = write_nifti(tmp_path / "study.nii.gz")
    path.chmod(0)
    with pytest.raises(ScanError) as error:
        read_scan(path)
    assert_one_line(error, path, "Permission denied")
