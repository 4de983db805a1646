"""Saliency maps for viewing: independent of the grid, smoothed, laid over the study's voxels, and as NIfTI."""

from collections.abc import Sequence

import deflate
import nibabel as nib
import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.preprocessing.resize import resize
from tfds_mosmed.scans.scan import Scan

SMOOTH_MM = 4.0  # integrated gradients are grainy: smoothed in pictures, not in the file


def per_ml(attributed: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Convert log-odds per voxel into log-odds per ml, which do not depend on the grid.

    Args:
      attributed: (slice, row, column), log-odds.
      spacing_mm: of these voxels.

    Returns:
      float32 of the same shape.
    """
    return (attributed * np.float32(1000 / np.prod(spacing_mm))).astype(np.float32)


def smooth(density: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Smooth a map with a Gaussian of SMOOTH_MM standard deviation, truncated at three of them."""
    return ndimage.gaussian_filter(density, [SMOOTH_MM / step for step in spacing_mm], truncate=3)


def lay_over(scan: Scan, prepared: Prepared, grid_map: np.ndarray) -> np.ndarray:
    """Resample a map from the grid to the scan's voxels.

    Linear between the centres of the grid's cells, constant from the outermost centres to the edge of the box; where
    the scan is coarser than the grid, its voxels average what they cover.

    Args:
      scan: the study.
      prepared: the study on the grid.
      grid_map: (slice, row, column) on the grid.

    Returns:
      float32 (slice, row, column) on the scan's voxels; 0 outside the box that the grid covers.
    """
    laid = np.zeros(scan.hu.shape, np.float32)
    covered = laid[prepared.box]
    # The edges of the box in the grid's voxels.
    spans = [
        ((part.start - first) / (last - first) * size, (part.stop - first) / (last - first) * size)
        for part, (first, last), size in zip(prepared.box, prepared.spans, grid_map.shape, strict=True)
    ]
    covered[:] = resize(grid_map, covered.shape, -np.inf, np.inf, spans)
    return laid


def map_to_nifti(scan: Scan, laid: np.ndarray) -> bytes:
    """Encode a map as .nii.gz with the shape, axis order and affine of the study's own file.

    Stored as int16 with a slope, so that 0 stays 0: half the size of float32, and every viewer reads it.

    Args:
      scan: the study.
      laid: (slice, row, column) on the scan's voxels.
    """
    slope = (float(np.abs(laid).max()) or 1.0) / np.iinfo(np.int16).max
    stored = np.rint(laid / slope).astype(np.int16)
    return to_nifti(*scan.to_source_axes(stored), slope)


def to_nifti(stored: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """Encode voxels as .nii.gz, in mm, with sform and qform.

    Args:
      stored: (x, y, z), int16 or uint8.
      affine: (4, 4), from the index (x, y, z, 1) to mm.
      slope: a viewer shows stored * slope + intercept.
      intercept: the same.
    """
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    return bytes(deflate.gzip_compress(image.to_bytes(), 1))
