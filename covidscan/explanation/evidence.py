"""Evidence in a saliency map: the slices to show, and how much of it lies outside of the lungs and of the body."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from covidscan.report.montage import lung_slices, pick_slices
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.lungs import TISSUE_ABOVE_HU
from tfds_mosmed.preprocessing.prepare import Prepared

LUNG_MARGIN_MM = 12.0  # half a cell of the coarsest map: evidence at the pleura spreads that far
APART_MM = 12.0  # between slices that are shown
SHOWN_FROM = 0.3  # share of a map's maximum


class Evidence(NamedTuple):
    """Evidence in a Grad-CAM, as far as it is shown.

    Attributes:
      strength: from 0 to 1, see `scale.Scale`.
      peaks: (slice,) on the grid, the highest share of the map's maximum in the lungs, or anywhere if none are found.
      peak: voxel of the grid with the highest of them, (slice, row, column).
      outside_lungs: share of what is shown that lies outside of the lungs; None where none are found, or where the map
        is empty.
      outside_body: share that lies outside of the body; None where the map is empty.
    """

    strength: float
    peaks: np.ndarray
    peak: tuple[int, ...]
    outside_lungs: float | None
    outside_body: float | None

    def describe(self) -> str:
        """Return the evidence in one sentence."""
        if not self.strength or self.outside_body is None:
            return "No evidence: no more probable than validation studies without the label."
        outside = f"{100 * self.outside_body:.0f} % of it lies outside of the body"
        if self.outside_lungs is not None:
            outside += f", {100 * self.outside_lungs:.0f} % outside of the lungs"
        no_lungs = "No lungs found. " if self.outside_lungs is None else ""
        strong = f"{100 * self.strength:.0f} % as strong as in validation studies with the label"
        return f"{no_lungs}Evidence {strong if self.strength < 1 else 'found'}: {outside}."


def find_evidence(prepared: Prepared, cam: np.ndarray, strength: float) -> Evidence:
    """Compare a Grad-CAM with the lungs and the body.

    Args:
      prepared: the study on the grid.
      cam: its Grad-CAM on the grid, (slice, row, column).
      strength: of the evidence, from 0 to 1.
    """
    lungs = _wide_lungs(prepared.volume, prepared.spacing_mm)
    share = cam / (float(cam.max()) or 1.0)
    inside = _inside(share, lungs)
    body = _body(prepared.volume) if lungs is None else _body(prepared.volume) | lungs
    above = np.maximum(share - SHOWN_FROM, 0).astype(np.float64)
    total = float(above.sum())
    return Evidence(
        strength=strength,
        peaks=inside.max((1, 2)),
        peak=tuple(map(int, np.unravel_index(inside.argmax(), cam.shape))),
        outside_lungs=float(above[~lungs].sum()) / total if total and lungs is not None else None,
        outside_body=float(above[~body].sum()) / total if total else None,
    )


def peaks(volume: np.ndarray, spacing_mm: Sequence[float], cam: np.ndarray) -> np.ndarray:
    """Return the highest value of a Grad-CAM in the lungs, or anywhere if none are found, of each slice.

    Args:
      volume: HU, (slice, row, column).
      spacing_mm: of its voxels.
      cam: of the same shape.

    Returns:
      (slice,).
    """
    return _inside(cam, _wide_lungs(volume, spacing_mm)).max((1, 2))


def _wide_lungs(volume: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray | None:
    region = lung_region(volume, spacing_mm)
    if region is None:
        return None
    reach = [int(LUNG_MARGIN_MM // step) for step in spacing_mm]
    return ndimage.maximum_filter(region.lungs, [2 * voxels + 1 for voxels in reach])


def _inside(values: np.ndarray, lungs: np.ndarray | None) -> np.ndarray:
    return values if lungs is None else np.where(lungs, values, 0)


def _body(volume: np.ndarray) -> np.ndarray:
    tissue = volume > TISSUE_ABOVE_HU
    return np.stack([np.asarray(ndimage.binary_fill_holes(image), bool) for image in tissue])


def telling_slices(prepared: Prepared, evidence: Evidence, count: int) -> list[int]:
    """Pick the slices with the highest peaks in the lungs, fewer where fewer are shown in colour.

    Args:
      prepared: the study on the grid.
      evidence: in its map.
      count: slices at most.

    Returns:
      Indices on the grid, rising. Without evidence in the lungs, those with most dense lung.
    """
    above = evidence.strength * (evidence.peaks - SHOWN_FROM)
    if not (above > 0).any():
        return lung_slices(prepared.volume, prepared.spacing_mm, min(count, 3))
    apart = int(APART_MM // prepared.spacing_mm[0])
    return pick_slices(np.where(above > 0, above, -1), count, apart)
