"""DICOM CT series -> Scan."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom

from tfds_mosmed.scans.dicom_headers import Slice, read_headers, silent_pydicom
from tfds_mosmed.scans.dicom_series import Series, group_into_series, rank_axial_series
from tfds_mosmed.scans.scan import Scan, ScanError, SeriesChooser, check_grid, finish_scan

MAX_MISSING_SHARE = 0.1
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
        slices, warnings = read_headers(path)
        series = group_into_series(slices)
        axial = rank_axial_series(series)
        scans = _read_each(axial, warnings, len(series))
        return next(scans) if choose_series is None or len(axial) == 1 else choose_series(scans)
    except ScanError as error:
        raise error.of(name) from error


def _read_each(axial: list[Series], warnings: list[str], num_series: int) -> Iterator[Scan]:
    yield _read_series(axial[0], warnings, num_series)
    for other in axial[1:]:
        with contextlib.suppress(ScanError):  # there is one that can be read
            yield _read_series(other, warnings, num_series)


def _read_series(series: Series, warnings: list[str], num_series: int) -> Scan:
    """Read the pixels of a series.

    Args:
      series: the series.
      warnings: about the study.
      num_series: in the study.
    """
    warnings = list(warnings)
    if series.num_duplicates:
        warnings.append(f"{series.num_duplicates} duplicate slices: each position was used once")
    if num_series > 1:
        warnings.append(f"{num_series} series: used the one of {series}")
    slice_numbers = _number_slices(series)
    voxels = _read_voxels(series, slice_numbers)
    if num_missing := len(voxels) - len(slice_numbers):
        warnings.append(f"{num_missing} of {len(voxels)} slices are missing: each repeats the one before it")
    return finish_scan(voxels.transpose(2, 1, 0), _affine(series, len(voxels)), warnings)


def _number_slices(series: Series) -> np.ndarray:
    """Compute the index of each slice in a volume with even distances: (slice,) int, with gaps where one is missing."""
    offsets_mm = series.offsets_mm()
    numbers = np.rint(offsets_mm / series.step_mm).astype(int)
    unevenness_mm = np.abs(numbers * series.step_mm - offsets_mm).max()
    if unevenness_mm > MAX_UNEVENNESS * series.step_mm or (np.diff(numbers) < 1).any():
        raise ScanError("has slices at uneven distances; give one series with even ones")
    count = int(numbers[-1]) + 1
    if count - len(numbers) > MAX_MISSING_SHARE * count:
        raise ScanError(f"lacks {count - len(numbers)} of {count} slices; copy the series again")
    return numbers


def _read_voxels(series: Series, numbers: np.ndarray) -> np.ndarray:
    """Decode the slices: int16 HU (slice, row, column). A missing slice repeats the one before it."""
    first, count = series.slices[0], int(numbers[-1]) + 1
    check_grid((count, *first.shape), (series.step_mm, *first.pixel_mm), 2)
    hu = np.empty((count, *first.shape), np.int16)
    decoder = _Decoder()
    of_number = dict(zip(numbers.tolist(), series.slices, strict=True))
    for number in range(count):
        hu[number] = decoder.decode_hu(of_number[number]) if number in of_number else hu[number - 1]
    return hu


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


class _Decoder:
    """Decodes slices. Keeps the last file, so that a multi-frame file is decoded once."""

    def __init__(self):
        self._file: Path | None = None
        self._frames = np.empty(0)

    def decode_hu(self, header: Slice) -> np.ndarray:
        """Decode a slice: int16 HU (row, column)."""
        if header.file != self._file:
            self._file, self._frames = header.file, _decode_file(header.file)
        frames = self._frames.reshape(-1, *self._frames.shape[-2:])
        if header.frame >= len(frames) or frames.shape[1:] != header.shape:
            raise ScanError("has a slice whose pixels do not fit its header; export the series again")
        hu = frames[header.frame] * header.slope + header.intercept
        return np.rint(hu).clip(-32768, 32767).astype(np.int16)


def _decode_file(file: Path) -> np.ndarray:
    try:
        with silent_pydicom():
            # From memory: given a path, pydicom allocates whatever length a damaged header claims.
            return pydicom.dcmread(io.BytesIO(file.read_bytes())).pixel_array
    except MemoryError:
        raise
    except Exception as error:
        reason = "unknown compression" if isinstance(error, NotImplementedError) else type(error).__name__
        raise ScanError(f"has a slice that cannot be decoded ({reason}); export the series uncompressed") from error
