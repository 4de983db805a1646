"""DICOM CT series -> Scan."""

import collections
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfds_mosmed.scans.dicom.continuity import describe_misfits
from tfds_mosmed.scans.dicom.headers import (
    CUT_SHORT,
    LOCALIZER,
    NOT_DICOM,
    ORDER_TAGS,
    STACK_TAGS,
    Slice,
    Unusable,
    count_reasons,
    read_headers,
)
from tfds_mosmed.scans.dicom.pixels import Decoder
from tfds_mosmed.scans.dicom.series import SAME_POSITION_MM, Series, describe_choice, num_longest, rank_axial_series
from tfds_mosmed.scans.dicom.stacks import MAX_FAR_SLICES, group_into_series
from tfds_mosmed.scans.scan import Scan, ScanError, SeriesChooser, check_grid, finish_scan

MAX_MISSING_SHARE = 0.1
MIN_CHANGE = 0.1  # of the distance between slices, as a share of it
MIN_RUN = 3  # equal distances
MAX_ROUNDING = 0.15  # of the positions of even slices, as a share of the distance between them
MAX_UNEVENNESS = 0.4  # of a slice's position, as a share of the distance between slices


def read_dicom(path: Path, name: str, choose_series: SeriesChooser | None = None) -> Scan:
    """Read one study.

    Args:
      path: a folder that holds the study, in subfolders too, or one multi-frame file. Hidden files are skipped.
      name: the study's name in messages.
      choose_series: chooses among several axial series; see `read_scan`.

    Raises:
      ScanError: there is no usable CT series. Messages do not contain file names: they may identify the patient.
    """
    try:
        slices, unusable = read_headers(path)
        series = group_into_series(slices)
        axial = rank_axial_series(series)
        scans = _read_each(axial, series, unusable)
        return next(scans) if choose_series is None or len(axial) == 1 else choose_series(scans)
    except ScanError as error:
        raise error.of(name) from error


def _read_each(axial: list[Series], series: list[Series], unusable: list[Unusable]) -> Iterator[Scan]:
    """Read the axial series. One that cannot be read is passed over if another that is as long can be."""
    errors: list[ScanError] = []
    num_read = 0
    for index, one in enumerate(axial):
        if not num_read and index >= num_longest(axial):
            break
        failed = [f"a preferred series cannot be used: it {error}" for error in errors] if not num_read else []
        try:
            warnings = [*_check_lost_slices(one, unusable), *failed, *describe_choice(one, axial, series)]
            scan = _read_series(one, warnings)
        except ScanError as error:
            errors.append(error)
            continue
        num_read += 1
        yield scan
    if not num_read:
        raise errors[0]


def _check_lost_slices(series: Series, unusable: list[Unusable]) -> list[str]:
    """Describe the files that cannot be used: those of a series, which are refused if they are many, and others."""
    lost = [one for one in unusable if _is_lost_slice(one, series)]
    others = [one for one in unusable if one not in lost]
    lines = [f"ignored {len(others)} files that are not CT slices ({count_reasons(others)})"] if others else []
    if not lost:
        return lines
    count = len(lost) + len(series.slices)
    if len(lost) > MAX_MISSING_SHARE * count:
        raise ScanError(
            f"lacks {len(lost)} of {count} slices: they cannot be used ({count_reasons(lost)}); export the series again"
        )
    return [f"{len(lost)} of {count} slices of the series cannot be used ({count_reasons(lost)})", *lines]


def _is_lost_slice(one: Unusable, series: Series) -> bool:
    """Return whether a file that cannot be used seems to be a slice of a series.

    That is by its SeriesInstanceUID; without one, by a name like those of the slices in its folder.
    """
    if one.reason == LOCALIZER:
        return False
    if one.series:
        return one.series in {header.series for header in series.slices}
    if one.reason not in (NOT_DICOM, CUT_SHORT):
        return False
    return _name_pattern(one.file) in {_name_pattern(header.file) for header in series.slices}


def _name_pattern(file: Path) -> Path:
    """Return a path whose numbers are the same in all slices."""
    return file.with_name(re.sub(r"\d+", "0", file.name))


def _read_series(series: Series, warnings: list[str]) -> Scan:
    """Read the pixels of a series; `warnings` are those about the study."""
    num_without = sum(not one.has_rescale for one in series.slices)
    if 0 < num_without < len(series.slices):
        raise ScanError(
            f"has {num_without} of {len(series.slices)} slices without RescaleSlope and RescaleIntercept; "
            "export the series again"
        )
    warnings = list(warnings)
    if series.duplicates:
        warnings.append(f"{len(series.duplicates)} duplicate slices: each position was used once")
    slice_numbers = _number_slices(series)
    voxels, num_unreadable = _read_voxels(series, slice_numbers)
    if num_unreadable:
        warnings.append(f"{num_unreadable} duplicate slices cannot be decoded: the others at their positions were used")
    if num_missing := len(voxels) - len(slice_numbers):
        warnings.append(f"{num_missing} of {len(voxels)} slices are missing: each repeats the one before it")
    warnings += describe_misfits(series, voxels, slice_numbers)
    scan = finish_scan(voxels.transpose(2, 1, 0), _affine(series, len(voxels)), warnings, num_filled=num_missing)
    at_number = {
        number: (one.file, one.frame) for number, one in zip(slice_numbers.tolist(), series.slices, strict=True)
    }
    frames = tuple(at_number.get(number) for number in range(len(voxels)))
    return dataclasses.replace(scan, acquisition=series.slices[0].acquisition, frames=frames)


def _number_slices(series: Series) -> np.ndarray:
    """Compute the index of each slice in a volume with even distances: (slice,) int, with gaps where one is missing."""
    offsets_mm = series.offsets_mm()
    every = np.arange(len(offsets_mm))
    even_mm = offsets_mm[-1] / every[-1]
    if np.abs(even_mm * every - offsets_mm).max() <= MAX_ROUNDING * even_mm:  # with rounding the median misleads
        return every
    numbers = np.rint(offsets_mm / series.step_mm).astype(int)
    unevenness_mm = np.abs(numbers * series.step_mm - offsets_mm).max()
    if unevenness_mm > MAX_UNEVENNESS * series.step_mm or (np.diff(numbers) < 1).any():
        raise ScanError(
            _changing_steps(offsets_mm)
            or _slices_at_one_position(series)
            or "has slices at uneven distances; give one series with even ones"
        )
    count = int(numbers[-1]) + 1
    if count - len(numbers) > MAX_MISSING_SHARE * count:
        lacks = f"lacks {count - len(numbers)} of {count} slices; copy the series again"
        raise ScanError(_changing_steps(offsets_mm) or lacks)
    return numbers


def _changing_steps(offsets_mm: np.ndarray) -> str | None:
    """Describe runs of slices with different distances; None if the distances only differ here and there."""
    steps = np.diff(offsets_mm)
    starts = np.flatnonzero(np.abs(np.diff(steps, prepend=-np.inf)) > MIN_CHANGE * steps)
    lengths = np.diff(np.append(starts, len(steps)))
    runs = [steps[start] for start, length in zip(starts, lengths, strict=True) if length >= MIN_RUN]
    distances = " mm, then ".join(f"{run:.3g}" for run in runs[:3])
    if len({f"{run:.3g}" for run in runs}) > 1:
        overlap = ", as where two acquisitions overlap" if len(runs) > 2 and runs[1] < min(runs[0], runs[2]) else ""
        return f"has slices whose distance changes ({distances} mm{overlap}); give one series with even distances"
    odd, even = np.median(steps[::2]), np.median(steps[1::2]) if len(steps) > 1 else 0
    if np.abs(odd - even) > MIN_CHANGE * max(odd, even) and _are_equal(steps[::2]) and _are_equal(steps[1::2]):
        return (
            f"has slices whose distance alternates ({odd:.3g} mm, {even:.3g} mm), as of two acquisitions, one between "
            "the other; give one of them"
        )
    even = np.linspace(0, offsets_mm[-1], len(offsets_mm))
    if np.abs(offsets_mm - even).max() <= 1 and np.abs(offsets_mm - np.rint(offsets_mm)).max() <= SAME_POSITION_MM:
        return "has slices at whole millimetres and uneven distances: they are rounded, or slices lack; export it again"
    return None


def _are_equal(steps: np.ndarray) -> bool:
    return bool((np.abs(steps / np.median(steps) - 1) <= MIN_CHANGE).mean() > 1 - MAX_MISSING_SHARE)


def _slices_at_one_position(series: Series) -> str | None:
    count = 1 + max(collections.Counter(index for _, index in series.duplicates).values(), default=0)
    if count <= MAX_FAR_SLICES:
        return None
    return (
        f"has {count} slices at one position, and the others at uneven distances; "
        "leave those out, or export the series with the slices' positions"
    )


def _read_voxels(series: Series, numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """Decode the slices: int16 HU (slice, row, column), and how many of the duplicates cannot be decoded.

    A missing slice repeats the one before it.
    """
    first, count = series.slices[0], int(numbers[-1]) + 1
    check_grid((count, *first.shape), (series.step_mm, *first.pixel_mm), 2)
    hu = np.empty((count, *first.shape), np.int16)
    decoder = Decoder()
    at_number = {number: [one] for number, one in zip(numbers.tolist(), series.slices, strict=True)}
    for duplicate, index in series.duplicates:
        at_number[int(numbers[index])].append(duplicate)
    num_unreadable = 0
    for number in range(count):
        if number not in at_number:
            hu[number] = hu[number - 1]
            continue
        planes, error = _decode_alike(decoder, at_number[number])
        if error and not planes:
            raise error
        num_unreadable += len(at_number[number]) - len(planes)
        hu[number] = planes[0]
        if any(not np.array_equal(plane, planes[0]) for plane in planes[1:]):
            raise ScanError(_describe_different_pictures(series))
    return hu, num_unreadable


def _describe_different_pictures(series: Series) -> str:
    counts = collections.Counter(index for _, index in series.duplicates)
    num_slices, most = len(series.slices), 1 + max(counts.values())
    if len(counts) <= MAX_FAR_SLICES:
        where, remedy = f"{most} at one of them, as where a contrast agent is watched to arrive", "leave those out"
    elif len(counts) == num_slices:
        where, remedy = f"at all {num_slices}, as of two phases or kernels", "give one of them"
    else:
        where, remedy = f"at {len(counts)} of {num_slices}, as where two acquisitions overlap", "give one of them"
    duplicate, index = series.duplicates[0]
    attributes = series.slices[index].attributes
    differing = [tag for tag in (*STACK_TAGS, *ORDER_TAGS) if attributes[tag] != duplicate.attributes[tag]]
    told = f"; they differ in {differing[0]}" if differing else ""
    return f"has different pictures at the same position ({where}{told}); {remedy}"


def _decode_alike(decoder: Decoder, headers: list[Slice]) -> tuple[list[np.ndarray], ScanError | None]:
    """Decode slices with one position: those that can be decoded, and the first error."""
    planes, first_error = [], None
    for header in headers:
        try:
            planes.append(decoder.decode_hu(header))
        except ScanError as error:
            first_error = first_error or error
    return planes, first_error


def _affine(series: Series, count: int) -> np.ndarray:
    """Compute the affine (4, 4) from the index (column, row, slice, 1) to mm in NIfTI's space."""
    first, last = series.slices[0], series.slices[-1]
    row, column = first.directions
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_mm[1]
    affine[:3, 1] = column * first.pixel_mm[0]
    affine[:3, 2] = (last.position - first.position) / (count - 1)
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM's left and back -> NIfTI's right and front
    return affine
