"""DICOM CT series -> Scan."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom

from tfds_mosmed.scans.dicom_headers import Slice, read_dataset, read_headers, silent_pydicom
from tfds_mosmed.scans.dicom_series import Series, describe_choice, num_longest, rank_axial_series
from tfds_mosmed.scans.dicom_stacks import group_into_series
from tfds_mosmed.scans.scan import Scan, ScanError, SeriesChooser, check_grid, finish_scan

MAX_MISSING_SHARE = 0.1
MIN_CHANGE = 0.1  # of the distance between slices, as a share of it
MIN_RUN = 3  # equal distances
AIR_HU = -1024
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
        scans = _read_each(axial, warnings, series)
        return next(scans) if choose_series is None or len(axial) == 1 else choose_series(scans)
    except ScanError as error:
        raise error.of(name) from error


def _read_each(axial: list[Series], warnings: list[str], series: list[Series]) -> Iterator[Scan]:
    """Read the axial series. One that cannot be read is passed over if another that is as long can be."""
    errors: list[ScanError] = []
    num_read = 0
    for index, one in enumerate(axial):
        if not num_read and index >= num_longest(axial):
            break
        failed = [f"a preferred series cannot be used: it {error}" for error in errors] if not num_read else []
        try:
            scan = _read_series(one, [*warnings, *failed, *describe_choice(one, axial, series)])
        except ScanError as error:
            errors.append(error)
            continue
        num_read += 1
        yield scan
    if not num_read:
        raise errors[0]


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
        raise ScanError(_changing_steps(offsets_mm) or "has slices at uneven distances; give one series with even ones")
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
    runs = [f"{steps[start]:.3g}" for start, length in zip(starts, lengths, strict=True) if length >= MIN_RUN]
    if len(set(runs)) < 2:
        return None
    distances = " mm, then ".join(runs[:3])
    return f"has slices whose distance changes ({distances} mm); give one series with even distances"


def _read_voxels(series: Series, numbers: np.ndarray) -> np.ndarray:
    """Decode the slices: int16 HU (slice, row, column). A missing slice repeats the one before it."""
    first, count = series.slices[0], int(numbers[-1]) + 1
    check_grid((count, *first.shape), (series.step_mm, *first.pixel_mm), 2)
    hu = np.empty((count, *first.shape), np.int16)
    decoder = _Decoder()
    of_number = dict(zip(numbers.tolist(), series.slices, strict=True))
    for number in range(count):
        hu[number] = decoder.decode_hu(of_number[number]) if number in of_number else hu[number - 1]
    for duplicate, index in series.duplicates:
        if not np.array_equal(decoder.decode_hu(duplicate), hu[numbers[index]]):
            raise ScanError(
                f"has different pictures at the same position ({len(series.duplicates)} slices more than positions); "
                "give one series"
            )
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
        self._padding: np.ndarray | None = None

    def decode_hu(self, header: Slice) -> np.ndarray:
        """Decode a slice: int16 HU (row, column)."""
        if header.file != self._file:
            self._file, (self._frames, self._padding) = header.file, _decode_file(header.file)
        frames = self._frames.reshape(-1, *self._frames.shape[-2:])
        if header.frame >= len(frames) or frames.shape[1:] != header.shape:
            raise ScanError("has a slice whose pixels do not fit its header; export the series again")
        frame, padding = frames[header.frame], self._padding
        hu = np.rint(frame * header.slope + header.intercept).clip(-32768, 32767).astype(np.int16)
        if padding is not None:
            hu[padding.reshape(frames.shape)[header.frame] & (hu > AIR_HU)] = AIR_HU
        return hu


def _decode_file(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode the pixels of a file: the stored values, and where they are padding, None if nowhere."""
    try:
        with silent_pydicom():
            # From memory: given a path, pydicom allocates whatever length a damaged header claims.
            dataset = read_dataset(io.BytesIO(file.read_bytes()))
            dataset.pixel_array_options(correct_unused_bits=False)
            pixels = dataset.pixel_array
            # Bits above BitsStored may be an overlay, or an unextended sign. pydicom leaves them in JPEG 2000.
            unused = max(0, 8 * pixels.dtype.itemsize - int(dataset.BitsStored)) if pixels.dtype.kind in "iu" else 0
            values = (pixels << unused) >> unused
            return values, _find_padding(dataset, pixels, values)
    except MemoryError:
        raise
    except Exception as error:
        reason = "unknown compression" if isinstance(error, NotImplementedError) else type(error).__name__
        raise ScanError(f"has a slice that cannot be decoded ({reason}); export the series uncompressed") from error


def _find_padding(dataset: pydicom.Dataset, pixels: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Find the pixels with PixelPaddingValue: bool like `pixels`; None if it is not one of their extremes.

    Args:
      dataset: the file.
      pixels: stored values, with all their bits.
      values: the same without the unused bits.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None or pixels.dtype.kind not in "iu":
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    # Either may be written as signed or as unsigned, whatever the pixels are.
    limits = np.array([first, first if last is None else last], np.int64).astype(pixels.dtype)
    lowest, highest = limits.min(), limits.max()
    padding = np.zeros(pixels.shape, bool)
    for stored in (pixels, values):
        padding |= (stored >= lowest) & (stored <= highest)
    others = values[~padding]
    # A value amid those of tissue is declared as padding by mistake.
    is_extreme = not others.size or others.min() > highest or others.max() < lowest
    return padding if padding.any() and is_extreme else None
