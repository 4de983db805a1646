"""From the grid to the study: a map laid over the scan's voxels, and NIfTI files that lie over the study's own."""

import nibabel as nib
import numpy as np
from isal import igzip

from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.preprocessing.resize import resize
from tfds_mosmed.scans.scan import Scan


def lay_over(scan: Scan, prepared: Prepared, grid_map: np.ndarray) -> np.ndarray:
    """Bring a map from the grid to the scan's voxels.

    Linear between the middles of the grid's cells, constant from the outermost ones to the edge of the box; where the
    scan is the coarser one, its voxels average what they cover.

    Args:
      scan: the study.
      prepared: the study on the grid.
      grid_map: (slice, row, column) on the grid, of which each voxel of the scan takes the value.

    Returns:
      float32 (slice, row, column) on the scan's voxels; 0 outside the box that the grid covers.
    """
    laid = np.zeros(scan.hu.shape, np.float32)
    covered = laid[prepared.box]
    covered[:] = resize(grid_map, covered.shape, -np.inf, np.inf)
    return laid


def map_to_nifti(scan: Scan, laid: np.ndarray) -> bytes:
    """Write a map on the scan's voxels as .nii.gz with the shape, order of axes and affine of the study's own file.

    Stored as int16 with a slope, so that 0 stays 0: half the size of float32, and every viewer reads it.

    Args:
      scan: the study.
      laid: (slice, row, column).
    """
    geometry = scan.geometry
    slope = (float(np.abs(laid).max()) or 1.0) / np.iinfo(np.int16).max
    stored = np.rint(laid / slope).astype(np.int16)
    return to_nifti(geometry.to_source_axes(stored), geometry.source_affine, slope)


def to_nifti(stored: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Write voxels as .nii.gz, mm, sform and qform set.

    Args:
      stored: (x, y, z), int16 or uint8.
      affine: (4, 4), from the index (x, y, z, 1) to mm.
      slope: of the values; a viewer shows stored x slope + intercept.
      intercept: likewise.
    """
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    return igzip.compress(image.to_bytes(), compresslevel=1)
