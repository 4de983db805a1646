"""One CT study from disk: a NIfTI file or a folder with a DICOM series."""

from pathlib import Path

import numpy as np

from tfds_mosmed.scans.nifti import is_nifti_name, read_nifti, read_nifti_mask
from tfds_mosmed.scans.scan import Scan, ScanError

__all__ = ["Scan", "ScanError", "is_nifti_name", "read_bytes", "read_mask", "read_scan"]


def read_scan(path: str | Path, name: str | None = None) -> Scan:
    """Read one study.

    Args:
      path: a .nii or .nii.gz file, a DICOM file, or a folder that holds a DICOM series.
      name: what messages call it, instead of its path.

    Returns:
      The study in the standard axes; see `Scan`.

    Raises:
      ScanError: in one line, what is wrong with which file and how to mend it.
    """
    path, name = Path(path), str(path) if name is None else name
    if is_nifti_name(path.name) and not path.is_dir():
        return read_nifti(read_bytes(path, name), name)
    from tfds_mosmed.scans import dicom  # pydicom takes longer to import than a NIfTI study to read

    return dicom.read_dicom(path, name)


def read_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Read a NIfTI mask over a study: bool (slice, row, column). Raises ScanError."""
    return read_nifti_mask(read_bytes(Path(path)), str(path), scan)


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """Read a whole file; what the system refuses is a ScanError, which calls it `name` or by its path."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScanError(
            f"{name or path}: cannot be read ({error.strerror}); check that it is there and readable"
        ) from error
