"""Slices under one SeriesInstanceUID that are one stack, several stacks, or a stack with others between its slices."""

import numpy as np
import pydicom
import pytest

from tests.support.chest import chest, dicom_slice, thin_chest
from tests.support.dicom_files import write_multi_frame
from tests.support.refusals import assert_refused
from tfds_mosmed.scans.read import read_scan

HU = chest()
THIN = (4.0, 4.0, 4.0)
COUNT = len(HU)


def write(folder, planes):
    """Write slices: pictures, places (slices from the feet) and attributes."""
    for index, (plane, place, tags) in enumerate(planes):
        dicom_slice(plane, place, **tags).save_as(folder / f"{index * 41 % 997}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "KVP", "SliceThickness", "AcquisitionTime", "InstanceNumber"])
def test_an_attribute_that_changes_without_order_does_not_part_a_series(tmp_path, tag):
    """As with a dose that changes, or values that an anonymiser drew: the parts are no stacks of even slices."""
    hu = thin_chest()
    values = np.random.default_rng(0).integers(1, 3, len(hu))
    assert min(np.bincount(values)[1:]) >= 8
    for index, (plane, value) in enumerate(zip(hu, values, strict=True)):
        text = f"10000{value}" if tag == "AcquisitionTime" else int(value)
        dicom_slice(plane, index, THIN, **{tag: text}).save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, hu)
    told = "the slices differ in KVP (" if tag == "KVP" else ""  # which is the same throughout a scan
    assert [line[: len(told)] for line in scan.warnings] == [told] * bool(told)


COUNTS = {
    "InstanceNumber": lambda part, index: 100 * part + index,
    "AcquisitionTime": lambda part, index: f"10{5 * part:02d}{59 - index:02d}.5",
    "ContentTime": lambda part, index: f"10{5 * part:02d}{index:02d}",
}


@pytest.mark.parametrize("shift", [0, 0.5, 1 / 3])
@pytest.mark.parametrize("tag", COUNTS)
def test_stacks_whose_slices_are_counted_one_stack_after_the_other_are_parted(tmp_path, tag, shift):
    planes = [
        (plane + 8 * part, index + shift * part, {tag: COUNTS[tag](part, index)})
        for part in range(2)
        for index, plane in enumerate(HU)
    ]
    scan = read_scan(write(tmp_path, planes))
    assert any(np.array_equal(scan.hu, hu) for hu in (HU, HU + 8))
    assert f"one SeriesInstanceUID has several stacks of slices, which differ in {tag}" in scan.warnings


def test_counts_that_begin_anew_above_or_at_random_do_not_part_a_series(tmp_path):
    for name, counts in (
        ("above", [index % 14 for index in range(COUNT)]),
        ("at random", np.random.default_rng(0).permutation(COUNT).tolist()),
        ("turns", [index // 4 for index in range(COUNT)]),
    ):
        (tmp_path / name).mkdir()
        planes = [(plane, index, {"InstanceNumber": counts[index]}) for index, plane in enumerate(HU)]
        scan = read_scan(write(tmp_path / name, planes))
        np.testing.assert_array_equal(scan.hu, HU)
        assert scan.warnings == ()


ENHANCED = [
    ("FrameContentSequence", "FrameAcquisitionNumber", (1, 2)),
    ("ContrastBolusUsageSequence", "ContrastBolusAgentAdministered", ("NO", "YES")),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", (40.0, 80.0)),
]


@pytest.mark.parametrize(("sequence", "tag", "values"), ENHANCED, ids=lambda one: one if isinstance(one, str) else "")
def test_enhanced_files_of_one_series_are_parted(tmp_path, sequence, tag, values):
    for part, value in enumerate(values):
        file = write_multi_frame(tmp_path / f"{part}.dcm", HU + 200 * part)
        dataset, item = pydicom.dcmread(file), pydicom.Dataset()
        setattr(item, tag, value)
        setattr(dataset.SharedFunctionalGroupsSequence[0], sequence, [item])
        dataset.save_as(file)
    scan = read_scan(tmp_path)
    assert any(np.array_equal(scan.hu, hu) for hu in (HU, HU + 200))
    assert any(line.endswith(f"which differ in {tag}") for line in scan.warnings)


@pytest.mark.parametrize("places", [12 * [20.5], [20.3], [3.5, 4.5, 20.2]], ids=str)
def test_slices_at_a_few_places_between_the_others_are_left_out(tmp_path, places):
    """As those that watch the contrast agent arrive."""
    planes = [(HU[9] + index, place, {}) for index, place in enumerate(places)]
    scan = read_scan(write(tmp_path, [*((plane, index, {}) for index, plane in enumerate(HU)), *planes]))
    np.testing.assert_array_equal(scan.hu, HU)
    assert any("several stacks of slices, which differ in distance from the others" in line for line in scan.warnings)


def with_others(start, stop, shift, first=0, **tags):
    lower = [(HU[index], index, {"AcquisitionNumber": 1}) for index in range(COUNT if stop < COUNT else first)]
    return [*lower, *((HU[index] + 40, index + shift, {"AcquisitionNumber": 1} | tags) for index in range(start, stop))]


def all_and(planes):
    return [*((plane, index, {}) for index, plane in enumerate(HU)), *planes]


@pytest.mark.parametrize(
    ("planes", "words"),
    [
        (all_and((HU[9] + n, 9, {}) for n in range(1, 13)), "13 at one of them, as where a contrast agent is watched"),
        (with_others(14, COUNT, 0, 20), "at 6 of 28, as where two acquisitions overlap)"),
        (with_others(14, COUNT, 0, 20, AcquisitionNumber=2), "overlap; they differ in AcquisitionNumber); give one of"),
        (with_others(14, COUNT, 0.5, 20), "(8 mm, then 4 mm, then 8 mm, as where two acquisitions overlap)"),
        (with_others(5, 16, 0.5), "(8 mm, then 4 mm, then 8 mm, as where two acquisitions overlap)"),
        (with_others(0, COUNT, 0, COUNT), "at all 28, as of two phases or kernels); give one of them"),
        (with_others(0, COUNT, 1 / 3, COUNT), "alternates (2.67 mm, 5.33 mm), as of two acquisitions, one between"),
        ([(HU[i], i if i % 2 else 12.4, {}) for i in range(COUNT)], "14 slices at one position, and the others at un"),
        (
            [(HU[i], round(1.3 * i) / 8, {}) for i in range(COUNT)],
            "at whole millimetres and uneven distances: they are",
        ),
    ],
    ids=["bolus", "overlap", "told", "overlap between", "part", "whole", "third", "zeros", "rounded"],
)
def test_what_is_wrong_with_places_is_named(tmp_path, planes, words):
    assert_refused(write(tmp_path, planes), words)


def test_even_positions_that_were_rounded_are_one_stack(tmp_path):
    """At 0.1 mm distances of 0.625 mm are 0.6 and 0.7 mm; sums of the more frequent one run away from the positions."""
    hu = np.concatenate([thin_chest()[:, ::4, ::4]] * 2)
    for index, plane in enumerate(hu):
        at = [-100.0, -120.0, round(0.625 * index, 1)]
        slice_ = dicom_slice(plane, index, (0.625, 16.0, 16.0), ImagePositionPatient=at)
        slice_.save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, hu)
    assert scan.spacing_mm[0] == pytest.approx(0.625, rel=1e-3)
