"""NIfTI files of the synthetic chest whose headers are changed."""

import nibabel as nib
import numpy as np

from tests.support.chest import chest, las_affine, to_las

PIXDIM, SFORM_CODE, SROW = 80, 254, 280  # offsets in the header


def patched(*places: int | bytes) -> bytes:
    """Return a file with other bytes at some offsets, which alternate with them."""
    content = bytearray(nib.Nifti1Image(to_las(chest()), las_affine()).to_bytes())
    for offset, value in zip(places[::2], places[1::2], strict=True):
        content[offset : offset + len(value)] = value
    return bytes(content)


def moved(affine: np.ndarray, *mm: float) -> np.ndarray:
    """Return an affine whose image is shifted."""
    affine = affine.copy()
    affine[:3, 3] += mm
    return affine
