"""One CT study from disk: a NIfTI file or a folder with a DICOM series."""

from pathlib import Path

import numpy as np

from tfds_mosmed.scans.nifti import is_nifti_name, read_nifti, read_nifti_mask
from tfds_mosmed.scans.scan import Scan, ScanError, SeriesChooser


def read_scan(path: str | Path, name: str | None = None, choose_series: SeriesChooser | None = None) -> Scan:
    """Read one study.

    Args:
      path: a .nii or .nii.gz file, a DICOM file, or a folder that holds a DICOM study.
      name: the study's name in messages; by default its path.
      choose_series: called if a DICOM study has several axial series; takes an iterator over them, the preferred one
        first, and returns one. By default the first one is read.

    Returns:
      The study in the standard axes; see `Scan`.

    Raises:
      ScanError: one line with the file, what is wrong with it and how to correct it.
    """
    path, name = Path(path), str(path) if name is None else name
    if is_nifti_name(path.name) and not path.is_dir():
        return read_nifti(read_bytes(path, name), name)
    from tfds_mosmed.scans import dicom  # importing pydicom takes longer than reading a NIfTI study

    return dicom.read_dicom(path, name, choose_series)


def read_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Read a NIfTI mask of a study: bool (slice, row, column). Raises ScanError."""
    return read_nifti_mask(read_bytes(Path(path)), str(path), scan)


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """Read a whole file. Raises ScanError, with `name` or else the path, if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScanError(
            f"{name or path}: cannot be read ({error.strerror}); check that it is there and readable"
        ) from error
