"""DICOM files that are damaged, incomplete or contradict themselves."""

import gzip
import os

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from tests.support.chest import chest, dicom_slice, write_series
from tests.support.dicom_files import write_multi_frame
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError

HU = chest()
UID_NAMES = [f"1.2.840.{index * 7919 % 1009}" for index in range(len(HU))]


def refusal(path):
    with pytest.raises(ScanError) as error:
        read_scan(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def edit(folder, change, numbers):
    for number in numbers:
        file = sorted(folder.iterdir())[number]
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file)
    return folder


def without(name):
    return lambda dataset: delattr(dataset, name)


def setting(name, value):
    return lambda dataset: setattr(dataset, name, value)


LOSSES = [
    (without("ImagePositionPatient"), "without ImagePositionPatient"),
    (without("ImageOrientationPatient"), "without ImageOrientationPatient"),
    (without("PixelSpacing"), "without PixelSpacing"),
    (without("Modality"), "without Modality"),
    (setting("Modality", "OT"), "of another modality than CT"),
    (setting("SamplesPerPixel", 3), "in colour"),
    (setting("PhotometricInterpretation", "PALETTE COLOR"), "in colour"),
    (setting("RescaleSlope", 0), "with RescaleSlope 0"),
    (setting("ImageOrientationPatient", [0] * 6), "with ImageOrientationPatient that is not two perpendicular"),
]


@pytest.mark.parametrize(("change", "reason"), LOSSES, ids=lambda one: one if isinstance(one, str) else "")
@pytest.mark.parametrize("numbers", [range(10), range(18, 28), range(0, 28, 2)], ids=["first", "last", "every second"])
def test_many_slices_of_a_series_that_cannot_be_used_are_refused(tmp_path, change, reason, numbers):
    edit(write_series(tmp_path / "P", HU), change, numbers)
    assert f"lacks {len(numbers)} of 28 slices: they cannot be used ({len(numbers)} {reason}" in refusal(tmp_path / "P")


def test_few_slices_of_a_series_that_cannot_be_used_are_told(tmp_path):
    edit(write_series(tmp_path / "P", HU), without("ImagePositionPatient"), [26, 27])
    scan = read_scan(tmp_path / "P")
    np.testing.assert_array_equal(scan.hu, HU[:26])
    assert scan.warnings == ("2 of 28 slices of the series cannot be used (2 without ImagePositionPatient)",)


@pytest.mark.parametrize("content", [b"", bytes(3000), b"<html>", None], ids=["empty", "zeros", "page", "cut"])
@pytest.mark.parametrize(
    "names", [None, UID_NAMES, [f"IM{index:04d}" for index in range(28)]], ids=["dcm", "uid", "im"]
)
def test_damaged_files_with_names_of_slices_are_slices(tmp_path, content, names):
    folder = write_series(tmp_path / "P", HU, names)
    (folder / "README").write_text("a viewer")
    for index in range(20, 28):
        file = folder / (names[index] if names else f"{index:03d}.dcm")
        file.write_bytes(file.read_bytes()[:400] if content is None else content)
    reason = "8 cut short" if content is None else "8 not in DICOM format"
    assert f"lacks 8 of 28 slices: they cannot be used ({reason})" in refusal(folder)


def test_damaged_files_of_other_series_are_ignored(tmp_path):
    write_series(tmp_path / "a", HU)
    edit(write_series(tmp_path / "b", HU, series="1.2.3.2"), without("ImagePositionPatient"), range(28))
    write_series(
        tmp_path / "c", HU[:9], [f"scout{index}" for index in range(9)], ImageType=["ORIGINAL", "PRIMARY", "SCOUT"]
    )
    assert read_scan(tmp_path).warnings == (
        "ignored 37 files that are not CT slices (28 without ImagePositionPatient, 9 localizer)",
    )


def test_the_whole_copy_of_a_slice_is_used_beside_one_that_is_cut_short(tmp_path):
    folder = write_series(tmp_path / "P", HU)
    for copied, cut in (("004.dcm", "004 (1).dcm"), ("006.dcm", "zzz.dcm")):
        (folder / cut).write_bytes((folder / copied).read_bytes()[:9000])
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert "2 duplicate slices cannot be decoded: the others at their positions were used" in scan.warnings


def no_pixels(dataset):
    del dataset.PixelData


def float_pixels(dataset):
    values = dataset.pixel_array.astype("<f4")
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_pixels, "a slice without pixels"),
        (float_pixels, "a slice with pixels that are not integers"),
        (lambda one: setattr(one, "PixelData", one.PixelData[:-200]), "a slice whose file is cut short"),
        (lambda one: setattr(one, "PixelData", 2 * one.PixelData), "more pixels than its header declares (1 frames)"),
        (lambda one: one.update({"BitsStored": 10, "HighBit": 9}), "with more bits than BitsStored"),
        (lambda one: delattr(one, "PixelRepresentation"), "a slice without PixelRepresentation; export"),
        (
            lambda one: one.update({"PhotometricInterpretation": ""}),
            "a slice without PhotometricInterpretation; export",
        ),
    ],
)
def test_what_is_wrong_with_pixels_is_named(tmp_path, change, words):
    edit(write_series(tmp_path / "P", HU), change, [12])
    assert words in refusal(tmp_path / "P")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (lambda content: gzip.compress(content), "is compressed with gzip; unpack it"),
        (lambda _: b"<!DOCTYPE html>" + bytes(400), "is a web page"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ],
)
def test_files_that_are_something_else_are_called_that(tmp_path, content, kind):
    for file in write_series(tmp_path / "P", HU).iterdir():
        file.write_bytes(content(file.read_bytes()))
    assert refusal(tmp_path / "P").startswith(f"holds no CT slice in DICOM format: its first file {kind}")


def test_headers_that_only_look_unusual_are_read(tmp_path):
    write_series(tmp_path / "P", HU, Modality="ct ", SamplesPerPixel=None, ImageOrientationPatient=[2, 0, 0, 0, 2, 0])
    scan = read_scan(tmp_path / "P")
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == ()
    assert scan.spacing_mm == (8, 4, 4)


@pytest.mark.parametrize("magic", [b"", bytes(128) + b"DICM"])
def test_huge_sparse_files_are_not_read(tmp_path, magic):
    folder = write_series(tmp_path / "P", HU)
    for name, size in (("huge", 50 << 30), ("large", 1 << 30)):
        (folder / name).write_bytes(magic)
        os.truncate(folder / name, size)
    header = (folder / "003.dcm").read_bytes()[:400]
    (folder / "zeros").write_bytes(header)
    os.truncate(folder / "zeros", 1 << 30)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    (line,) = scan.warnings
    assert line.startswith("ignored 3 files that are not CT slices (")
    assert "1 larger than 2 GiB" in line
    assert "larger than 2 GiB" in refusal(folder / "huge")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.dcm")
    assert refusal(tmp_path / "fifo.dcm") == "is not a regular file; give a file or a folder"
    write_series(tmp_path / "P", HU)
    os.mkfifo(tmp_path / "P/fifo")
    (tmp_path / "P/gone").symlink_to(tmp_path / "nowhere")
    assert read_scan(tmp_path / "P").warnings == (
        "ignored 2 files that are not CT slices (2 no regular file, or a broken link)",
    )


def test_an_enhanced_frame_without_a_position_is_a_lost_slice(tmp_path):
    file = write_multi_frame(tmp_path / "P.dcm", HU)
    dataset = pydicom.dcmread(file)
    del dataset.PerFrameFunctionalGroupsSequence[27].PlanePositionSequence
    dataset.save_as(file)
    scan = read_scan(file)
    np.testing.assert_array_equal(scan.hu, HU[:27])
    assert scan.warnings == ("1 of 28 slices of the series cannot be used (1 without ImagePositionPatient)",)


def test_an_enhanced_file_with_more_pixels_than_frames_is_refused(tmp_path):
    file = write_multi_frame(tmp_path / "P.dcm", HU)
    dataset = pydicom.dcmread(file)
    dataset.NumberOfFrames = 24
    dataset.PerFrameFunctionalGroupsSequence = Sequence(dataset.PerFrameFunctionalGroupsSequence[:24])
    dataset.save_as(file)
    assert "more pixels than its header declares (24 frames)" in refusal(file)


def test_one_enhanced_file_has_a_header_longer_than_the_first_block(tmp_path):
    file = write_multi_frame(tmp_path / "P.dcm", HU)
    dataset = pydicom.dcmread(file)
    dataset.add_new(0x00090010, "LO", "CREATOR")
    dataset.add_new(0x00091001, "OB", bytes(2**18))
    dataset.save_as(file)
    np.testing.assert_array_equal(read_scan(file).hu, HU)
    folder = tmp_path / "series"
    folder.mkdir()
    for index, plane in enumerate(HU[:9]):
        header = dicom_slice(plane, index)
        header.add_new(0x00090010, "LO", "CREATOR")
        header.add_new(0x00091001, "OB", bytes(2**18))
        header.save_as(folder / f"{index}", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(folder).hu, HU[:9])
