"""What is shown of the maps: in units that do not depend on the grid, and smooth enough to be looked at."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

SMOOTH_MM = 4.0  # integrated gradients are grainy: for the eye, not for the file


def per_ml(attributed: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Turn log-odds of each voxel into log-odds per ml, which hold on any grid.

    Args:
      attributed: (slice, row, column), log-odds.
      spacing_mm: of these voxels.
    """
    return (attributed * np.float32(1000 / np.prod(spacing_mm))).astype(np.float32)


def smooth(density: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Smooth a map by a Gaussian of SMOOTH_MM, cut off at three times that."""
    return ndimage.gaussian_filter(density, [SMOOTH_MM / step for step in spacing_mm], truncate=3)


def telling_slices(evidence: np.ndarray, spacing_mm: Sequence[float], count: int, apart_mm: float = 12.0) -> list[int]:
    """Choose the slices that hold most evidence, no two of them nearer than `apart_mm`.

    Args:
      evidence: (slice, row, column), 0 and more.
      spacing_mm: of its voxels.
      count: how many at most.

    Returns:
      Slice numbers from feet to head.
    """
    left = evidence.sum(axis=(1, 2), dtype=np.float64)
    reach = int(apart_mm // spacing_mm[0])
    chosen: list[int] = []
    while len(chosen) < count and np.isfinite(left).any():
        best = int(np.argmax(left))
        chosen.append(best)
        left[max(0, best - reach) : best + reach + 1] = -np.inf
    return sorted(chosen)
