"""Cropping and resampling of a study to the grid of the records."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import Box, LungFinding, find_anatomy, find_lung_box
from tfds_mosmed.preprocessing.lungs import segment_lungs
from tfds_mosmed.preprocessing.resize import resize

if TYPE_CHECKING:
    from tfds_mosmed.scans.scan import Scan  # imports nibabel, which an exported model does not need

LOWEST_HU, HIGHEST_HU = -1024, 1500


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A study on the grid.

    Attributes:
      volume: int16 HU from -1024 to 1500, (slice, row, column).
      lesion_mask: uint8 0 or 1 on the same voxels, or None.
      spacing_mm: of the grid's voxels, (slice, row, column).
      box: the part of the scan's voxels that the grid covers, edge to edge, (slice, row, column).
      lungs_found: whether it is the box of the lungs; always False for the whole field of view.
      warnings: what is unusual about the study, including the scan's warnings.
      lung_findings: of the warnings, those about the lungs.
    """

    volume: np.ndarray
    lesion_mask: np.ndarray | None
    spacing_mm: tuple[float, float, float]
    box: Box
    lungs_found: bool
    warnings: tuple[str, ...]
    lung_findings: tuple[LungFinding, ...] = ()


def prepare(scan: "Scan", grid: Grid, lesion_mask: np.ndarray | None = None) -> Prepared:
    """Crop, clip and resize a study to a grid, with bit-identical results on every run.

    Args:
      scan: the study.
      grid: the grid.
      lesion_mask: bool (slice, row, column) on the scan's voxels. It is cropped and resized like the volume; a voxel
        of the grid is lesion if half or more of what it averages is.

    Returns:
      The study on the grid.
    """
    if grid.field == "full":
        box: Box = (slice(0, scan.hu.shape[0]), slice(0, scan.hu.shape[1]), slice(0, scan.hu.shape[2]))
        found, findings = False, find_anatomy(segment_lungs(scan.hu, scan.spacing_mm))
    else:
        box, found, findings = find_lung_box(scan.hu, scan.spacing_mm)
    # Padding outside the field of view (-2048, -3024 …) becomes air before it is averaged with anything.
    volume = resize(scan.hu[box], grid.shape, LOWEST_HU, HIGHEST_HU)
    mask = None
    if lesion_mask is not None:
        mask = (resize(lesion_mask[box], grid.shape, 0, 1) >= 0.5).astype(np.uint8)
    spacing = [
        (part.stop - part.start) * step / size
        for part, step, size in zip(box, scan.spacing_mm, grid.shape, strict=True)
    ]
    return Prepared(
        volume=np.rint(volume).astype(np.int16, order="C"),
        lesion_mask=mask,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        box=box,
        lungs_found=found,
        warnings=(*scan.warnings, *(finding.message for finding in findings)),
        lung_findings=findings,
    )
