"""DICOM headers -> the geometry and acquisition of every CT slice in a folder. Nothing that identifies the patient."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pydicom.errors
from pydicom import config

from tfds_mosmed.scans.scan import ScanError, check_grid

TAGS = [
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "ConvolutionKernel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
MAX_FILES = 20_000


class Slice(NamedTuple):
    """Header of one slice: a file, or a frame of a multi-frame file.

    Attributes:
      file: that holds its pixels.
      frame: index in the file.
      study: StudyInstanceUID.
      series: SeriesInstanceUID.
      kernel: ConvolutionKernel, "" if unknown.
      shape: (rows, columns).
      position: (3,) mm of the first pixel's centre, to the patient's left, back and head.
      directions: (2, 3) unit vectors along a row and down a column, in the same axes.
      pixel_mm: distance between rows, between columns.
      slope: HU = stored value x slope + intercept.
      intercept: likewise.
    """

    file: Path
    frame: int
    study: str
    series: str
    kernel: str
    shape: tuple[int, int]
    position: np.ndarray
    directions: np.ndarray
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector perpendicular to the slice."""
        return np.cross(*self.directions)


@contextlib.contextmanager
def silent_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings and logs: they quote unexpected values, which may identify the patient."""
    disabled, config.logger.disabled = config.logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.logger.disabled = disabled


def read_headers(path: Path) -> tuple[list[Slice], list[str]]:
    """Read the headers of all CT slices of one study.

    Args:
      path: a file, or a folder that is searched at any depth. Hidden files and folders are skipped.

    Returns:
      The slices in the order of their files, and warnings.

    Raises:
      ScanError: there are no CT slices, or they belong to several studies; without the study's name.
    """
    try:
        files = _list_files(path)
        if not path.exists():
            raise ScanError("does not exist; check the path")
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror}); check its permissions") from error
    if len(files) > MAX_FILES:
        raise ScanError(f"holds {len(files)} files; give the folder of one series")
    slices: list[Slice] = []
    num_ignored = 0
    for file in files:
        of_file = _read_header(file)
        num_ignored += of_file is None
        slices += of_file or []
    if not slices:
        raise ScanError("holds no CT slice in DICOM format; give .nii or .nii.gz files, or folders of DICOM CT slices")
    studies = {header.study for header in slices}
    if len(studies) > 1:
        raise ScanError(f"holds slices of {len(studies)} studies; give each study a folder of its own")
    return slices, [f"ignored {num_ignored} files that are not CT slices"] if num_ignored else []


def _list_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for folder, subfolders, names in os.walk(path, onerror=fail):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def _read_header(file: Path) -> list[Slice] | None:
    """Read the header of a file: one slice per frame; None if it is not a CT image with a position."""
    try:
        with silent_pydicom():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
            if header.get("Modality") != "CT" or "LOCALIZER" in (header.get("ImageType") or []):
                return None
            num_frames = int(header.get("NumberOfFrames") or 1)
            check_grid((num_frames, max(1, int(header.Rows)), max(1, int(header.Columns))), (), 2)
            if num_frames > 1 and len(header.get("PerFrameFunctionalGroupsSequence") or []) != num_frames:
                return None  # the positions of its frames are unknown
            return [_parse_slice(file, header, frame) for frame in range(num_frames)]
    except ScanError:
        raise
    except pydicom.errors.InvalidDicomError:
        return None
    except OSError as error:
        raise ScanError(f"holds a file that cannot be read ({error.strerror}); check its permissions") from error
    except Exception:  # whatever a damaged header makes pydicom raise
        return None


def _parse_slice(file: Path, header: Any, frame: int) -> Slice:
    """Parse the attributes of a frame, which in enhanced CT are in functional groups, per frame or shared."""
    groups = [*(header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]]
    groups += [*(header.get("SharedFunctionalGroupsSequence") or [])][::-1]

    def get(name: str, sequence: str, default: Any = None) -> Any:
        for group in groups:
            value = (group.get(sequence) or [{}])[0].get(name)
            if value is not None:
                return value
        value = header.get(name)
        return default if value is None else value

    directions = np.array(get("ImageOrientationPatient", "PlaneOrientationSequence"), np.float64).reshape(2, 3)
    position = np.array(get("ImagePositionPatient", "PlanePositionSequence"), np.float64).reshape(3)
    row_mm, column_mm = (float(step) for step in get("PixelSpacing", "PixelMeasuresSequence"))
    slope = float(get("RescaleSlope", "PixelValueTransformationSequence", 1))
    intercept = float(get("RescaleIntercept", "PixelValueTransformationSequence", 0))
    if not np.isfinite([*directions.flat, *position, row_mm, column_mm, slope, intercept]).all():
        raise ValueError("not finite")
    kernel = get("ConvolutionKernel", "CTReconstructionSequence", "")
    return Slice(
        file=file,
        frame=frame,
        study=str(header.get("StudyInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        kernel=str(kernel if isinstance(kernel, str) else next(iter(kernel), "")),
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        directions=directions,
        pixel_mm=(row_mm, column_mm),
        slope=slope,
        intercept=intercept,
    )
