"""Evidence in a saliency map: the slices to show, and how much of it lies outside of the lungs and of the body."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from covidscan.explanation.scale import Scale
from covidscan.report.montage import lung_slices, pick_slices
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.lungs import TISSUE_ABOVE_HU
from tfds_mosmed.preprocessing.prepare import Prepared

LUNG_MARGIN_MM = 12.0  # half a cell of the coarsest map: evidence at the pleura spreads that far
APART_MM = 12.0  # between slices that are shown


class Evidence(NamedTuple):
    """Evidence above the floor of the scale.

    Attributes:
      peaks: (slice,) on the grid, the highest Grad-CAM in the lungs; in the whole slice where no lungs are found.
      peak: voxel of the grid with the highest of them, (slice, row, column).
      is_present: whether any voxel is above the floor.
      outside_lungs: share of what is above the floor that lies outside of the lungs; None where none are found, or
        where there is no evidence.
      outside_body: share that lies outside of the body; None where there is no evidence.
    """

    peaks: np.ndarray
    peak: tuple[int, ...]
    is_present: bool
    outside_lungs: float | None
    outside_body: float | None

    def describe(self) -> str:
        """Return the evidence in one sentence."""
        if not self.is_present:
            return "No evidence: the map is no higher than in validation studies without the label."
        outside = f"{self.outside_body:.0%} of the evidence lies outside of the body"
        if self.outside_lungs is None:
            return f"No lungs found; {outside}."
        return f"{outside}, {self.outside_lungs:.0%} outside of the lungs."


def find_evidence(prepared: Prepared, cam: np.ndarray, scale: Scale) -> Evidence:
    """Compare a Grad-CAM with the lungs and the body.

    Args:
      prepared: the study on the grid.
      cam: its Grad-CAM on the grid, (slice, row, column).
      scale: of the label.
    """
    region = lung_region(prepared.volume, prepared.spacing_mm)
    lungs = None if region is None else _widen(region.lungs, prepared.spacing_mm)
    inside = cam if lungs is None else np.where(lungs, cam, 0)
    body = _body(prepared.volume) if lungs is None else _body(prepared.volume) | lungs
    above = np.maximum(cam - scale.floor, 0).astype(np.float64)
    total = float(above.sum())
    return Evidence(
        peaks=inside.max((1, 2)),
        peak=tuple(map(int, np.unravel_index(inside.argmax(), cam.shape))),
        is_present=total > 0,
        outside_lungs=float(above[~lungs].sum()) / total if total and lungs is not None else None,
        outside_body=float(above[~body].sum()) / total if total else None,
    )


def _widen(lungs: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    reach = [int(LUNG_MARGIN_MM // step) for step in spacing_mm]
    return ndimage.maximum_filter(lungs, [2 * voxels + 1 for voxels in reach])


def _body(volume: np.ndarray) -> np.ndarray:
    tissue = volume > TISSUE_ABOVE_HU
    return np.stack([np.asarray(ndimage.binary_fill_holes(image), bool) for image in tissue])


def telling_slices(prepared: Prepared, evidence: Evidence, scale: Scale, count: int) -> list[int]:
    """Pick the slices with the highest peaks in the lungs, fewer where fewer are above the floor.

    Args:
      prepared: the study on the grid.
      evidence: in its map.
      scale: of the label.
      count: slices at most.

    Returns:
      Indices on the grid, rising. Without evidence in the lungs, those with most dense lung.
    """
    above = evidence.peaks - scale.floor
    if not (above > 0).any():
        return lung_slices(prepared.volume, prepared.spacing_mm, min(count, 3))
    apart = int(APART_MM // prepared.spacing_mm[0])
    return pick_slices(np.where(above > 0, above, -1), min(count, int((above > 0).sum())), apart)
