"""One CT study from disk: a NIfTI file, a folder with a DICOM series, or a .zip of either."""

import dataclasses
import os
import stat
from pathlib import Path

import numpy as np

from tfds_mosmed.scans import archive
from tfds_mosmed.scans.nifti import is_nifti_name, read_nifti, read_nifti_mask
from tfds_mosmed.scans.nifti_header import kind_of
from tfds_mosmed.scans.scan import MAX_BYTES, Scan, ScanError, SeriesChooser

MAX_FILE_BYTES = 2 * MAX_BYTES  # of a NIfTI file, which is read at once


def read_scan(path: str | Path, name: str | None = None, choose_series: SeriesChooser | None = None) -> Scan:
    """Read one study.

    Args:
      path: a .nii or .nii.gz file, a DICOM file, a folder that holds a DICOM study, or a .zip of one study.
      name: the study's name in messages; by default its path.
      choose_series: called if a DICOM study has several axial series; takes an iterator over them, the preferred one
        first, and returns one. By default the first one is read.

    Returns:
      The study in the standard axes; see `Scan`.

    Raises:
      ScanError: one line with the file, what is wrong with it and how to correct it.
    """
    path, name = Path(path), str(path) if name is None else name
    if is_nifti_name(path.name) and not os.path.isdir(path):
        return read_nifti(read_bytes(path, name), name)
    if archive.is_zip_name(path.name) and not os.path.isdir(path):
        return _read_zip(path, name, choose_series)
    if os.path.isfile(path) and (kind := kind_of(path)):
        raise ScanError(f"{name}: {kind}")
    from tfds_mosmed.scans.dicom.read import read_dicom  # importing pydicom takes longer than reading a NIfTI study

    return read_dicom(path, name, choose_series)


def _read_zip(path: Path, name: str, choose_series: SeriesChooser | None) -> Scan:
    from tfds_mosmed.scans import find  # imports pydicom

    with archive.unpacked(path, name) as folder:
        studies, _ = find.studies_below(folder, itself=True)
        if len(studies) != 1:
            others = archive.describe_others(path)
            none = "no CT study in DICOM or NIfTI format" + (others and f" but {others}")
            holds = f"{len(studies)} studies" if studies else none
            raise ScanError(f"{name}: holds {holds}; give a folder or an archive for each study")
        scan = read_scan(studies[0], name, choose_series)
        frames = tuple(frame and (path / frame[0].relative_to(folder), frame[1]) for frame in scan.frames)
        return dataclasses.replace(scan, frames=frames)


def read_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Read a NIfTI mask of a study: bool (slice, row, column). Raises ScanError."""
    return read_nifti_mask(read_bytes(Path(path)), str(path), scan)


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """Read a whole file. Raises ScanError, with `name` or else the path, if it cannot be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ScanError(f"{name or path}: is no regular file; give a file or a folder")
        if status.st_size > MAX_FILE_BYTES:
            raise ScanError(
                f"{name or path}: takes {status.st_size / 2**30:.1f} GiB, a chest CT at most {MAX_FILE_BYTES >> 30}; "
                "crop it, or leave it out"
            )
        return path.read_bytes()
    except OSError as error:
        raise ScanError(
            f"{name or path}: cannot be read ({error.strerror}); check that it is there and readable"
        ) from error
