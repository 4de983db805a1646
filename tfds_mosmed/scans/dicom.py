"""DICOM CT series -> Scan. Of the headers only geometry and acquisition come out, nothing of the patient."""

import collections
import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pydicom.errors
from pydicom import config

from tfds_mosmed.preprocessing.lungs import find_lungs
from tfds_mosmed.scans.scan import MIN_SLICES, Scan, ScanError, check_grid, finish_scan

TAGS = [
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "ConvolutionKernel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
MAX_FILES = 20_000
SAME_PLACE_MM = 0.01
MAX_MISSING_SHARE = 0.1
LIKE_MOSMED_MM = 8.0
SHARP_KERNELS = ("LUNG", "BONE", "EDGE", "SHARP", "YA", "YB", "B6", "B7", "B8", "BL", "BR6", "FC5", "FC8")


class _Slice(NamedTuple):
    """Where one slice lies, and where its pixels are."""

    file: Path
    frame: int
    study: str
    series: str
    kernel: str
    shape: tuple[int, int]
    position: np.ndarray  # (3,) mm, to the patient's left, back and head
    rows_and_columns: np.ndarray  # (2, 3) unit vectors along a row and down a column
    pixel_mm: tuple[float, float]  # between rows, between columns
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.rows_and_columns)

    @property
    def stack(self) -> tuple:
        return (self.series, self.shape, tuple(self.rows_and_columns.round(3).ravel()), self.pixel_mm)


class _Stack(NamedTuple):
    """Slices of one series in their order, without duplicates."""

    slices: list[_Slice]
    step_mm: float
    duplicates: int

    @property
    def is_axial(self) -> bool:
        return abs(self.slices[0].normal[2]) > 0.8

    @property
    def length_mm(self) -> float:
        return self.step_mm * len(self.slices)


def read_dicom(path: Path, name: str) -> Scan:
    """Read a series.

    Args:
      path: a folder that holds it, in subfolders too, or one multi-frame file. Hidden files are passed over.
      name: what messages call it.

    Raises:
      ScanError: if there is no usable CT series. File names are not told: they may name the patient.
    """
    try:
        slices, notes = _find_slices(path)
        stacks = _stacks(slices)
        axial = _by_preference(stacks)
        scan = _read_stack(axial[0], notes, len(stacks))
        if len(axial) > 1 and not find_lungs(scan.hu, scan.spacing_mm).found:
            for stack in axial[1:]:
                with contextlib.suppress(ScanError):  # the first one can be read
                    other = _read_stack(stack, notes, len(stacks))
                    if find_lungs(other.hu, other.spacing_mm).found:
                        return other
        return scan
    except ScanError as error:
        raise error.of(name) from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep pydicom from warning and logging: it quotes odd values, which may be the patient's."""
    disabled, config.logger.disabled = config.logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.logger.disabled = disabled


def _find_slices(path: Path) -> tuple[list[_Slice], list[str]]:
    try:
        files = _files(path)
        if not path.exists():
            raise ScanError("is not there; check the path")
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror}); check its permissions") from error
    if len(files) > MAX_FILES:
        raise ScanError(f"holds {len(files)} files; give the folder of one series")
    slices: list[_Slice] = []
    odd = 0
    for file in files:
        found = _slices_of(file)
        odd += found is None
        slices += found or []
    if not slices:
        raise ScanError("holds no CT slice in DICOM format; give .nii or .nii.gz files, or folders of DICOM CT slices")
    studies = {one.study for one in slices}
    if len(studies) > 1:
        raise ScanError(f"holds slices of {len(studies)} studies; give each study a folder of its own")
    return slices, [f"{odd} files that are not CT slices were left out"] if odd else []


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for folder, subfolders, names in os.walk(path, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def _slices_of(file: Path) -> list[_Slice] | None:
    """Read the header of a file; None if it is not a CT image."""
    try:
        with silent():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
            if header.get("Modality") != "CT" or "LOCALIZER" in (header.get("ImageType") or []):
                return None
            frames = int(header.get("NumberOfFrames") or 1)
            check_grid((frames, max(1, int(header.Rows)), max(1, int(header.Columns))), (), 2)
            if frames > 1 and len(header.get("PerFrameFunctionalGroupsSequence") or []) != frames:
                return None  # nothing says where its frames lie
            return [_slice(file, header, frame) for frame in range(frames)]
    except ScanError:
        raise
    except pydicom.errors.InvalidDicomError:
        return None
    except OSError as error:
        raise ScanError(f"holds a file that cannot be read ({error.strerror}); check its permissions") from error
    except Exception:  # whatever a damaged header makes pydicom raise
        return None


def _slice(file: Path, header: Any, frame: int) -> _Slice:
    groups = [header, *(header.get("SharedFunctionalGroupsSequence") or [])]
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame:
        groups.append(per_frame[frame])

    def find(name: str, sequence: str, default: Any = None) -> Any:
        for group in reversed(groups):
            holder = (group.get(sequence) or [None])[0] if group is not header else header
            if holder is not None and holder.get(name) is not None:
                return holder.get(name)
        return default

    directions = np.array(find("ImageOrientationPatient", "PlaneOrientationSequence"), np.float64).reshape(2, 3)
    position = np.array(find("ImagePositionPatient", "PlanePositionSequence"), np.float64).reshape(3)
    row_mm, column_mm = (float(step) for step in find("PixelSpacing", "PixelMeasuresSequence"))
    slope = float(find("RescaleSlope", "PixelValueTransformationSequence", 1))
    intercept = float(find("RescaleIntercept", "PixelValueTransformationSequence", 0))
    if not np.isfinite([*directions.flat, *position, row_mm, column_mm, slope, intercept]).all():
        raise ValueError("not finite")
    kernel = find("ConvolutionKernel", "CTReconstructionSequence", "")
    return _Slice(
        file=file,
        frame=frame,
        study=str(header.get("StudyInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        kernel=str(kernel if isinstance(kernel, str) else next(iter(kernel), "")),
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        rows_and_columns=directions,
        pixel_mm=(row_mm, column_mm),
        slope=slope,
        intercept=intercept,
    )


def _stacks(slices: Iterable[_Slice]) -> list[_Stack]:
    by_stack = collections.defaultdict(list)
    for one in slices:
        by_stack[one.stack].append(one)
    return [_in_order(members) for members in by_stack.values()]


def _in_order(slices: list[_Slice]) -> _Stack:
    normal = slices[0].normal
    places = np.array([one.position @ normal for one in slices])
    order = np.argsort(places, kind="stable")
    first_of_place = np.diff(places[order], prepend=-np.inf) > SAME_PLACE_MM
    kept = [slices[index] for index in order[first_of_place]]
    steps = np.diff(places[order][first_of_place])
    return _Stack(kept, float(np.median(steps)) if len(steps) else 0.0, len(slices) - len(kept))


def _by_preference(stacks: list[_Stack]) -> list[_Stack]:
    """Sort the axial series: long ones first, soft kernel before sharp, then slices nearest to MosMedData's."""
    axial = [stack for stack in stacks if stack.is_axial and len(stack.slices) >= MIN_SLICES]
    if not axial:
        longest = max(len(stack.slices) for stack in stacks)
        raise ScanError(
            f"has no series of {MIN_SLICES} or more axial slices (the longest has {longest}); give the whole chest"
        )
    enough = 0.8 * max(stack.length_mm for stack in axial)

    def rank(stack: _Stack) -> tuple:
        sharp = stack.slices[0].kernel.upper().startswith(SHARP_KERNELS)
        return (stack.length_mm < enough, sharp, abs(stack.step_mm - LIKE_MOSMED_MM), stack.slices[0].series)

    return sorted(axial, key=rank)


def _read_stack(stack: _Stack, notes: list[str], num_series: int) -> Scan:
    """Read the pixels of a series, and say what is odd about it and that it was chosen.

    Args:
      stack: the series.
      notes: what was odd before.
      num_series: among how many it was chosen.
    """
    voxels, affine, gaps = _read_pixels(stack)
    said = list(notes)
    if stack.duplicates:
        said.append(f"{stack.duplicates} slices came twice: each was taken once")
    if num_series > 1:
        kernel = f", kernel {stack.slices[0].kernel}" if stack.slices[0].kernel else ""
        took = f"{len(stack.slices)} axial slices, {stack.step_mm:.3g} mm apart{kernel}"
        said.append(f"{num_series} series: took the one of {took}")
    return finish_scan(voxels, affine, [*said, *gaps])


def _read_pixels(stack: _Stack) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Decode the slices: HU int16 (x, y, z), affine to NIfTI's right-anterior-superior space, warnings."""
    first, last = stack.slices[0], stack.slices[-1]
    places = np.array([one.position @ first.normal for one in stack.slices])
    numbers = np.rint((places - places[0]) / stack.step_mm).astype(int)
    if (
        np.abs(numbers * stack.step_mm - (places - places[0])).max() > 0.4 * stack.step_mm
        or (np.diff(numbers) < 1).any()
    ):
        raise ScanError("has slices at uneven distances; give one series with even ones")
    count = int(numbers[-1]) + 1
    missing = count - len(numbers)
    if missing > MAX_MISSING_SHARE * count:
        raise ScanError(f"lacks {missing} of {count} slices; copy the series again")
    check_grid((count, *first.shape), (stack.step_mm, *first.pixel_mm), 2)
    hu = np.empty((count, *first.shape), np.int16)
    # A missing slice repeats the one below it, so that all others stay in their places.
    sources = np.searchsorted(numbers, np.arange(count), side="right") - 1
    pixels = _Pixels()
    for place, source in enumerate(sources):
        hu[place] = pixels.hounsfield(stack.slices[source]) if place in numbers else hu[place - 1]
    row, column = first.rows_and_columns
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_mm[1]
    affine[:3, 1] = column * first.pixel_mm[0]
    affine[:3, 2] = (last.position - first.position) / (count - 1)
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM's left and back -> NIfTI's right and front
    gaps = [f"{missing} of {count} slices are missing: each repeats the one before it"] if missing else []
    return hu.transpose(2, 1, 0), affine, gaps


class _Pixels:
    """Decodes files, the last one kept: a multi-frame file is decoded once."""

    def __init__(self):
        self._file: Path | None = None
        self._frames = np.empty(0)

    def hounsfield(self, one: _Slice) -> np.ndarray:
        """Give a slice as int16 HU, (row, column)."""
        if one.file != self._file:
            self._file, self._frames = one.file, self._decode(one.file)
        frames = self._frames.reshape(-1, *self._frames.shape[-2:])
        if one.frame >= len(frames) or frames.shape[1:] != one.shape:
            raise ScanError("has a slice whose pixels do not fit its header; export the series again")
        hu = frames[one.frame] * one.slope + one.intercept
        return np.rint(hu).clip(-32768, 32767).astype(np.int16)

    def _decode(self, file: Path) -> np.ndarray:
        try:
            with silent():
                # From memory: of a file it would allocate whatever length a damaged header announces.
                return pydicom.dcmread(io.BytesIO(file.read_bytes())).pixel_array
        except MemoryError:
            raise
        except Exception as error:
            reason = "unknown compression" if isinstance(error, NotImplementedError) else type(error).__name__
            raise ScanError(f"has a slice that cannot be decoded ({reason}); export the series uncompressed") from error
