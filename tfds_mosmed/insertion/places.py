"""Choice of places for lesions: below the pleura of the chest wall, where the lung is clear."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.lung_region import CLOSED_MM, close_in_plane
from tfds_mosmed.preprocessing.lungs import LungSegmentation

SURFACE_MM = 4.5  # depth of the voxels that the pleura is found from
NORMAL_MM = 6.0  # over which the direction of the pleura is averaged
FACING = 0.6  # least cosine between the normal and the direction to the middle: not the mediastinum, not the fissures
MIN_AREA = 0.3  # of the largest slice's lung: neither apex nor the narrow recess at the base
NEAR_MM = 20.0  # side of the box around a place that is searched for what is not clear lung
DENSER_HU, DENSER_LUNG_HU = 150.0, 90.0  # than typical lung: a vessel or opacity; dependent or diseased lung
MAX_DENSE = 0.08
TOWARDS_BACK, TOWARDS_BASE = 4.0, 2.0  # exponents of the preference for the dependent lung
APART_MM = 50.0
_OTHER_AXES = ((1, 2), (0, 2), (0, 1))


class Place(NamedTuple):
    """Point of the pleura that a lesion of any size may lie against.

    Attributes:
      surface_mm: (slice, row, column), mm from the centre of the scan's first voxel.
      inward: unit vector into the lung along the same axes.
      lung_hu: mean density of the lung there, without vessels.
    """

    surface_mm: tuple[float, float, float]
    inward: tuple[float, float, float]
    lung_hu: float


def choose_places(
    chest: LungSegmentation, spacing_mm: Sequence[float], count: int, rng: np.random.Generator
) -> list[Place]:
    """Choose places where COVID-19 is frequent: peripheral, posterior and basal (Bernheim et al., Radiology 2020).

    They lie at the chest wall, and so far from the hilum, away from vessels that are visible on the coarse grid and
    from opacities, and at least 5 cm apart.

    Args:
      chest: the segmented lungs.
      spacing_mm: of the scan's own voxels, (slice, row, column).
      count: places wanted.
      rng: source of the choice.

    Returns:
      At most `count` places; none where no lungs are found or none is clear.
    """
    if chest.mask is None:
        return []
    step = chest.spacing_mm
    lungs = close_in_plane(chest.mask, [round(CLOSED_MM / each) for each in step[1:]])
    depth: Any = ndimage.distance_transform_edt(lungs, sampling=step)
    clear, lung_hu = _clear(chest, lungs)
    areas = lungs.sum(axis=(1, 2))[:, None, None]
    at = np.nonzero((depth > 0) & (depth <= SURFACE_MM) & clear & (areas >= MIN_AREA * areas.max()))
    if not len(at[0]):
        return []
    position = (np.stack(at, 1) + 0.5) * step
    extent = (
        np.array([np.flatnonzero(lungs.any(axis=others))[[0, -1]] + [0, 1] for others in _OTHER_AXES]) * step[:, None]
    )
    inward = _unit(_normals(lungs, step)[:, at[0], at[1], at[2]].T)
    to_middle = _unit((extent.mean(axis=1) - position)[:, 1:])
    faces_middle = (inward[:, 1:] * to_middle).sum(axis=1) > FACING
    share = (position - extent[:, 0]) / np.ptp(extent, axis=1)  # from feet to head, from front to back
    preference = TOWARDS_BACK * share[:, 1] - TOWARDS_BASE * share[:, 0]
    # Gumbel's trick: the order of a weighted draw without replacement.
    keys = np.where(faces_middle, preference + rng.gumbel(size=len(position)), -np.inf)
    chosen: list[int] = []
    for index in np.argsort(-keys)[: np.count_nonzero(faces_middle)]:
        if len(chosen) < count and (np.linalg.norm(position[chosen] - position[index], axis=1) >= APART_MM).all():
            chosen.append(int(index))
    surface = position - 0.5 * np.asarray(spacing_mm) - inward * depth[at][:, None]
    # Lesions lie anywhere between the slices, and small ones may be in none.
    surface[:, 0] += rng.uniform(-0.5, 0.5, len(surface)) * step[0]
    return [Place(tuple(surface[k].tolist()), tuple(inward[k].tolist()), float(lung_hu[at][k])) for k in chosen]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (vector, axis) of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _normals(lungs: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return vectors into the lungs at their surface, (axis, slice, row, column)."""
    soft = ndimage.gaussian_filter(lungs.astype(np.float32), NORMAL_MM / step)
    slopes: Any = np.gradient(soft, *step.tolist())
    return np.stack(slopes)


def _clear(chest: LungSegmentation, lungs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where the lung is free of vessels and opacities, and the mean density of what is."""
    inner = lungs & ndimage.binary_erosion(lungs, np.ones((1, 3, 3), bool))
    typical = float(np.median(chest.hu[chest.mask]))
    dense = inner & (chest.hu > typical + DENSER_HU)
    size = [max(1, round(NEAR_MM / each)) for each in chest.spacing_mm]
    count, of_dense, total = (
        ndimage.uniform_filter(values.astype(np.float32), size)  # type: ignore[arg-type]
        for values in (inner, dense, np.where(inner & ~dense, chest.hu, 0))
    )
    lung_hu = total / np.maximum(count - of_dense, 1e-3)
    is_lung = count > 0.2
    return is_lung & (of_dense <= MAX_DENSE * count) & (lung_hu < typical + DENSER_LUNG_HU), lung_hu
