"""Series whose slices do not all fit together."""

import re

import numpy as np
import pydicom
import pytest

from tests.support.chest import SPACING_MM, chest, dicom_slice, write_series
from tests.support.dicom_files import write_multi_frame
from tfds_mosmed.scans.read import read_scan

HU = chest()


def edit(folder, change, keep):
    for index, file in enumerate(sorted(folder.iterdir())):
        if keep(index):
            dataset = pydicom.dcmread(file)
            change(dataset, index)
            dataset.save_as(file)
    return folder


def setting(**tags):
    return lambda dataset, _index: dataset.update(tags)


def shifted(x, y=0.0):
    def change(dataset, index):
        dataset.ImagePositionPatient = [-100 + x, -120 + y, -300.0 + 8 * index]

    return change


@pytest.mark.parametrize("change", [shifted(40), shifted(0, -4), shifted(3, 3)])
@pytest.mark.parametrize("keep", [lambda index: index > 12, lambda index: index == 5], ids=["half", "one"])
def test_slices_shifted_in_their_plane_are_told(tmp_path, change, keep):
    lines = read_scan(edit(write_series(tmp_path / "P", HU), change, keep)).warnings
    assert "the slices do not lie above each other: slice" in lines[0]


def test_jitter_drift_and_missing_slices_are_no_shift(tmp_path):
    rng = np.random.default_rng(0)

    def jitter(dataset, index):
        dataset.ImagePositionPatient = [-100 + rng.uniform(-0.4, 0.4), -120 + 0.5 * index, -300.0 + 8 * index]

    folder = edit(write_series(tmp_path / "P", HU), jitter, lambda _: True)
    (folder / "010.dcm").unlink()
    assert not any("lie above each other" in line for line in read_scan(folder).warnings)


@pytest.mark.parametrize("keep", [lambda index: index == 20, lambda index: index > 19], ids=["one", "upper"])
@pytest.mark.parametrize("intercept", [-924, -1124, -724, -984])
def test_slices_with_another_rescale_intercept_are_told(tmp_path, keep, intercept):
    folder = edit(write_series(tmp_path / "P", HU), setting(RescaleIntercept=intercept), keep)
    (line,) = (line for line in read_scan(folder).warnings if "continue each other" not in line)
    words = re.match(r"HU change by (\d+) everywhere between slices (20 and 21|21 and 22)", line)
    assert words is not None
    assert abs(int(words[1]) - abs(intercept + 1024)) < 3


def test_an_enhanced_frame_with_another_rescale_intercept_is_told(tmp_path):
    file = write_multi_frame(tmp_path / "P.dcm", HU)
    dataset = pydicom.dcmread(file)
    rescale = pydicom.Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -724
    dataset.PerFrameFunctionalGroupsSequence[9].PixelValueTransformationSequence = [rescale]
    dataset.save_as(file)
    assert any(line.startswith("HU change by") for line in read_scan(file).warnings)


@pytest.mark.parametrize(
    "tags",
    [
        {"ContrastBolusAgent": "ULTRAVIST"},
        {"ConvolutionKernel": "YB"},
        {"KVP": 100},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
        {"ContrastBolusVolume": 80},
        {"ContrastBolusStartTime": "101112"},
    ],
    ids=lambda tags: next(iter(tags)),
)
def test_halves_of_other_acquisitions_are_told(tmp_path, tags):
    folder = write_series(tmp_path / "P", HU, ConvolutionKernel="B30f", KVP=120)
    scan = read_scan(edit(folder, setting(**tags), lambda index: index > 17))
    np.testing.assert_array_equal(scan.hu, HU)
    assert f"the slices differ in {next(iter(tags))} (18 and 10 of them): they may be of two scans" in scan.warnings


def test_one_scan_whose_slices_alternate_in_an_attribute_stays_one(tmp_path):
    """Parted, its slices would be 16 mm apart."""
    change = setting(ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    scan = read_scan(edit(write_series(tmp_path / "P", HU), change, lambda index: index % 2))
    np.testing.assert_array_equal(scan.hu, HU)
    assert "the slices differ in ImageType (14 and 14 of them): they may be of two scans" in scan.warnings


@pytest.mark.parametrize("places", [[-40], [-12], [70, 71], [-9, 60]])
def test_single_slices_far_away_are_left_out(tmp_path, places):
    folder = write_series(tmp_path / "P", HU)
    for place in places:
        dicom_slice(HU[9], place).save_as(folder / f"far{place}.dcm", enforce_file_format=True)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert any("several stacks of slices, which differ in distance from the others" in line for line in scan.warnings)


@pytest.mark.parametrize(("start", "frame"), [(12, "1.5"), (17, "1.5"), (14, "")], ids=["overlap", "gap", "no frame"])
def test_halves_that_cannot_be_joined_are_told(tmp_path, start, frame):
    tags = {"FrameOfReferenceUID": frame} if frame else {}
    write_series(tmp_path / "a", HU[:14], **tags)
    (tmp_path / "b").mkdir()
    for index, plane in enumerate(HU[start:], start):
        dicom_slice(plane, index, series="1.2.3.2", **tags).save_as(tmp_path / f"b/{index}", enforce_file_format=True)
    assert any("another series continues this one above or below" in line for line in read_scan(tmp_path).warnings)


@pytest.mark.parametrize("size", [2, 4, 7])
def test_short_series_that_fit_are_joined_and_told(tmp_path, size):
    folder = write_series(tmp_path / "P", HU)
    edit(folder, lambda one, index: setattr(one, "SeriesInstanceUID", f"1.2.4.{index // size}"), lambda _: True)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, HU)
    assert scan.warnings == (f"{28 // size} series one above the other were joined, as their geometry fits",)


def test_halves_of_every_second_slice_are_told_and_equal_places_are_not(tmp_path):
    halves = write_series(tmp_path / "halves", HU)
    edit(halves, setting(SeriesInstanceUID="1.2.3.9"), lambda index: index % 2)
    assert "slices half-way between those of this one" in read_scan(halves).warnings[-1]
    edit(halves, setting(ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]), lambda index: index % 2)
    edit(halves, lambda one, i: setattr(one, "ImagePositionPatient", [0, 0, 8 * i - 301]), lambda _: True)
    assert any("slices half-way between those of this one" in line for line in read_scan(halves).warnings)
    alike = write_series(tmp_path / "alike", HU[::2], spacing=(16.0, 4.0, 4.0))
    write_series(tmp_path / "alike" / "again", HU[::2], spacing=(16.0, 4.0, 4.0), series="1.2.3.9")
    assert not any("half-way" in line for line in read_scan(alike).warnings)


def counted(name, first, step, pause_from=99, pause=0):
    def change(dataset, index):
        value = first + step * index + (pause if index >= pause_from else 0)
        setattr(dataset, name, f"10{value // 60:02.0f}{value % 60:05.2f}" if name == "AcquisitionTime" else value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (counted("AcquisitionTime", 0, 0, 14, 40), "slices 14 and 15 were acquired 40 s apart: they may be of two"),
        (
            counted("AcquisitionTime", 290, -0.5, 14, -70),
            "slices 14 and 15 were acquired 70 s apart: they may be of two",
        ),
        (counted("SliceLocation", 0, 1), "8 mm apart by ImagePositionPatient, and 1 mm by SliceLocation: check which"),
        (counted("SliceLocation", 0, -80), "8 mm apart by ImagePositionPatient, and 80 mm by SliceLocation: check"),
    ],
    ids=["pause", "downwards", "mm", "cm"],
)
def test_pauses_and_other_distances_are_told(tmp_path, change, words):
    lines = read_scan(edit(write_series(tmp_path / "P", HU), change, lambda _: True)).warnings
    assert any(words in line for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        counted("AcquisitionTime", 0, 0.4),
        counted("AcquisitionTime", 0, 2, 14, 8),
        counted("AcquisitionTime", 0, 100),
        counted("SliceLocation", 500, -8),
        counted("SliceLocation", 500, 7.5),
        lambda dataset, index: setattr(dataset, "SliceLocation", 0),
    ],
    ids=["spiral", "turns", "random", "table", "tilt", "zero"],
)
def test_usual_times_and_locations_are_not_told(tmp_path, change):
    assert read_scan(edit(write_series(tmp_path / "P", HU), change, lambda _: True)).warnings == ()


@pytest.mark.parametrize(
    ("numbers", "total", "words"),
    [
        ((1, 2), 3, "lacks 1 of the 3 files of its concatenation"),
        ((2, 3), None, "the first of them number 1"),
        ((1, 2), 2, ""),
        ((1, 2), None, ""),
    ],
)
def test_a_file_of_a_concatenation_that_is_lost_is_told(tmp_path, numbers, total, words):
    half = len(HU) // 2
    for part, (number, hu) in enumerate(zip(numbers, (HU[:half], HU[half:]), strict=True)):
        file = write_multi_frame(tmp_path / f"{number}.dcm", hu, ConcatenationUID="1.2.3", InConcatenationNumber=number)
        dataset = pydicom.dcmread(file)
        if total:
            dataset.InConcatenationTotalNumber = total
        for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame.PlanePositionSequence[0].ImagePositionPatient[2] = -300.0 + (part * half + index) * SPACING_MM[0]
        dataset.save_as(file)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, HU)
    assert [words in line for line in scan.warnings] == [True] * bool(words)
