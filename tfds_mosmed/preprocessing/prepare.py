"""Cropping and resampling of a study to the grid of the records."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.grid import FIXED_MM, Grid
from tfds_mosmed.preprocessing.lung_region import (
    BACK_MARGIN_MM,
    FEET_MARGIN_MM,
    MARGIN_MM,
    Box,
    LungFinding,
    find_lung_box,
    find_unusual,
)
from tfds_mosmed.preprocessing.lungs import segment_lungs
from tfds_mosmed.preprocessing.resize import Span, resize

if TYPE_CHECKING:
    from tfds_mosmed.scans.scan import Scan  # imports nibabel, which an exported model does not need

LOWEST_HU, HIGHEST_HU = -1024, 1500
LEAST_SHARE = 0.05  # of a voxel that is lesion, to be marked


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A study on the grid.

    Attributes:
      volume: int16 HU from -1024 to 1500, (slice, row, column).
      lesion_mask: uint8 0 or 1 on the same voxels, or None.
      spacing_mm: of the grid's voxels, (slice, row, column).
      box: the part of the scan's voxels that the grid covers, (slice, row, column).
      spans: first and last edge of the grid in the scan's voxels, (slice, row, column); they are those of the box but
        for a fixed field, whose edges lie between voxels or outside of the scan.
      lungs_found: whether it is the box of the lungs; always False for the whole field of view.
      warnings: what is unusual about the study, including the scan's warnings.
      lung_findings: of the warnings, those about the lungs.
    """

    volume: np.ndarray
    lesion_mask: np.ndarray | None
    spacing_mm: tuple[float, float, float]
    box: Box
    spans: tuple[Span, Span, Span]
    lungs_found: bool
    warnings: tuple[str, ...]
    lung_findings: tuple[LungFinding, ...] = ()

    def to_scan(self, axis: int, position: float) -> float:
        """Return the position in the scan's voxels of a position in the grid's; voxel i extends from i to i + 1."""
        first, last = self.spans[axis]
        return first + position * (last - first) / self.volume.shape[axis]


def prepare(scan: "Scan", grid: Grid, lesion_mask: np.ndarray | None = None) -> Prepared:
    """Crop, clip and resize a study to a grid, with bit-identical results on every run.

    Args:
      scan: the study.
      grid: the grid.
      lesion_mask: bool (slice, row, column) on the scan's voxels. It is cropped and resized like the volume; a voxel
        of the grid is lesion if half or more of what it averages is; where a lesion is too small for that, the
        voxel that has most of it is.

    Returns:
      The study on the grid.
    """
    if grid.field == "full":
        box: Box = (slice(0, scan.hu.shape[0]), slice(0, scan.hu.shape[1]), slice(0, scan.hu.shape[2]))
        found, findings = False, find_unusual(segment_lungs(scan.hu, scan.spacing_mm))
    else:
        box, found, findings = find_lung_box(scan.hu, scan.spacing_mm)
    spans = _edges(box)
    if grid.field == "fixed":
        spans = _fixed_spans(box, scan.spacing_mm)
        if found and _cuts_lungs(spans, box, scan.spacing_mm):
            height, depth, width = FIXED_MM
            message = f"the lungs are larger than the {height:g} x {depth:g} x {width:g} mm of the grid {grid}"
            findings = (*findings, LungFinding("lungs_cut_off", message))
        box = _covered(spans, scan.hu.shape)
    in_box = [(first - part.start, last - part.start) for (first, last), part in zip(spans, box, strict=True)]
    # Padding outside the field of view (-2048, -3024 …) becomes air before it is averaged with anything.
    volume = resize(scan.hu[box], grid.shape, LOWEST_HU, HIGHEST_HU, in_box, outside=LOWEST_HU)
    mask = None
    if lesion_mask is not None:
        mask = _lesion_voxels(resize(lesion_mask[box], grid.shape, 0, 1, in_box)).astype(np.uint8)
    spacing = [
        (last - first) * step / size
        for (first, last), step, size in zip(spans, scan.spacing_mm, grid.shape, strict=True)
    ]
    return Prepared(
        volume=np.rint(volume).astype(np.int16, order="C"),
        lesion_mask=mask,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        box=box,
        spans=spans,
        lungs_found=found,
        warnings=(*scan.warnings, *(finding.message for finding in findings)),
        lung_findings=findings,
    )


def _lesion_voxels(share: np.ndarray) -> np.ndarray:
    """Return the voxels that are lesion, bool, from the share of each that is (slice, row, column)."""
    voxels = share >= 0.5
    # Otherwise a study with nothing but small lesions would have the empty mask of a study without disease.
    alone = np.logical_not(ndimage.binary_dilation(voxels, np.ones((3, 3, 3))))
    return voxels | (alone & (share > LEAST_SHARE) & (share == ndimage.maximum_filter(share, 3)))


def _edges(box: Box) -> tuple[Span, Span, Span]:
    first, second, third = ((part.start, part.stop) for part in box)
    return first, second, third


def _fixed_spans(box: Box, spacing_mm: Sequence[float]) -> tuple[Span, Span, Span]:
    """Return the edges, in voxels, of a field of FIXED_MM about the middle of a box."""
    middles = [(part.start + part.stop) / 2 for part in box]
    halves = [length / step / 2 for length, step in zip(FIXED_MM, spacing_mm, strict=True)]
    first, second, third = ((middle - half, middle + half) for middle, half in zip(middles, halves, strict=True))
    return first, second, third


def _cuts_lungs(spans: Sequence[Span], box: Box, spacing_mm: Sequence[float]) -> bool:
    """Return whether edges cut the lungs: their box without its margins."""
    before = (FEET_MARGIN_MM, *MARGIN_MM[1:])
    after = (MARGIN_MM[0], BACK_MARGIN_MM, MARGIN_MM[2])
    return any(
        part.start + margin / step < first or part.stop - other / step > last
        for part, (first, last), margin, other, step in zip(box, spans, before, after, spacing_mm, strict=True)
    )


def _covered(spans: Sequence[Span], shape: Sequence[int]) -> Box:
    """Return the scan's voxels that lie between edges, also those that do so in part."""
    first, second, third = (
        slice(max(0, math.floor(start)), min(size, math.ceil(stop)))
        for (start, stop), size in zip(spans, shape, strict=True)
    )
    return first, second, third
