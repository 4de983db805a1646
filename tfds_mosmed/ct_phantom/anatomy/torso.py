"""Outline of the torso and its muscles, by their thickness over the rib cage at each height and angle.

The thicknesses were chosen by eye after axial CT: pectoralis in front, serratus and latissimus at the side, the muscles
of the shoulder blade, erector spinae and trapezius behind.
"""

import numpy as np
import scipy.interpolate

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.fields import capsule, smooth_union
from tfds_mosmed.ct_phantom.anatomy.subject import Subject

WALL_MM = 10.0  # of ribs and the muscles between them
ANGLES = (0, 15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180)  # degrees from the sternum to the spine
# Thickness of the muscles over the ribs in mm at the ANGLES, by height in lung heights.
MUSCLES = {
    -0.40: (11, 11, 11, 10, 10, 10, 10, 10, 10, 15, 34, 40, 46),
    0.00: (5, 4, 4, 4, 6, 7, 8, 9, 11, 15, 24, 30, 42),
    0.25: (4, 4, 5, 5, 5, 6, 8, 11, 14, 16, 19, 26, 40),
    0.45: (4, 8, 10, 8, 6, 7, 10, 15, 19, 20, 20, 25, 39),
    0.60: (4, 11, 14, 13, 11, 12, 16, 25, 33, 32, 24, 25, 39),
    0.75: (5, 13, 18, 20, 21, 25, 31, 42, 48, 43, 31, 28, 40),
    0.87: (8, 15, 23, 31, 44, 58, 68, 68, 58, 48, 40, 38, 44),
    1.00: (14, 22, 34, 54, 80, 98, 98, 86, 68, 58, 52, 52, 56),
    1.15: (22, 30, 46, 66, 90, 100, 100, 88, 72, 66, 66, 66, 66),
}
# Fat under the skin at the ANGLES, as a share of the flank's.
FAT = (0.4, 0.7, 0.9, 1.0, 1.05, 1.05, 1.0, 0.95, 0.85, 0.7, 0.55, 0.5, 0.5)
STEPS = 1024  # of the cosine of the angle


def build_torso(
    s: Subject, scan: Acquisition, z, y, x, cage, front, spine_y
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the chest's surface on the coarse grid.

    Args:
      s: the person.
      scan: the scan.
      z: heights (slice, 1, 1).
      y: rows of the scan (1, row, 1).
      x: columns in the person's own frame (slice, row, column).
      cage: signed distance to the rib cage's inner surface.
      front: cosine of the angle from the front.
      spine_y: (slice,) y of the vertebral bodies.

    Returns:
      Signed distances to muscles and skin, and the depth of the muscles beyond the ribs, each (slice, row, column).
    """
    u = scan.z / s.lung_height
    index = ((front + 1) * np.float32((STEPS - 1) / 2)).astype(np.intp)
    np.clip(index, 0, STEPS - 1, out=index)
    index += STEPS * np.arange(len(u))[:, None, None]
    degrees = np.degrees(np.arccos(np.linspace(-1, 1, STEPS)))
    table = _interpolated(np.array(list(MUSCLES.values()), float), degrees)
    muscles = scipy.interpolate.PchipInterpolator(np.array(list(MUSCLES)), table)(np.clip(u, -0.4, 1.15))
    spinal = _interpolated(np.array([(0,) * 10 + (0.3, 0.8, 1)], float), degrees)
    muscles *= spinal + (1 - spinal) * (0.4 + 0.6 * s.muscle)
    belly = 1 + 0.4 * s.visceral_fat * np.clip(1 - u / 0.3, 0, 1)[:, None] * np.clip(1.5 - degrees / 60, 0, 1)
    fat = _interpolated(np.array([FAT], float), degrees) * s.fat * belly * np.interp(u, [0.75, 0.95], [1, 0.6])[:, None]
    depth = np.take(muscles.astype(np.float32).ravel(), index)
    muscle = cage - depth
    muscle -= np.float32(WALL_MM)
    skin = muscle - np.take((fat + 2).astype(np.float32).ravel(), index)
    # The back lies on the couch.
    couch = y - np.float32(spine_y.max() + 64 + 0.3 * s.fat) + np.float32(0.0003) * x * x
    skin = np.maximum(skin, couch)
    muscle = np.maximum(muscle, couch + np.float32(2 + 0.15 * s.fat))
    _add_shoulders(s, scan, z, y, x, muscle, skin)
    muscle = np.maximum(muscle, _armpits(s, z, y, x, cage))
    return muscle.astype(np.float32), skin.astype(np.float32), depth


def _interpolated(values: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    return scipy.interpolate.PchipInterpolator(np.array(ANGLES, float), values, axis=1)(degrees)


def shoulder(s: Subject) -> tuple[float, float, float]:
    """Return the place of the left shoulder's joint, (z, y, x) mm."""
    return 1.02 * s.lung_height, 8.0, s.half_width + 24


def raised_elbow(s: Subject) -> tuple[float, float, float]:
    """Return the place to which a raised left arm leads, (z, y, x) mm."""
    return 1.5 * s.lung_height, -30.0, s.half_width + 62


def _add_shoulders(s: Subject, scan: Acquisition, z, y, x, muscle, skin) -> None:
    """Add shoulders, and raised arms with the folds of the armpits, in place."""
    first = int(np.searchsorted(scan.z, 0.55 * s.lung_height))
    if first == len(scan.z) or s.arms_down:
        return
    z, ax = z[first:], np.abs(x[first:])
    h, w, d = s.lung_height, s.half_width, s.half_depth
    bulk = np.float32(0.6 + 0.4 * s.muscle)
    parts = (
        (shoulder(s), raised_elbow(s), 36),
        ((0.60 * h, -0.78 * d, 0.62 * w), (1.0 * h, -22.0, w + 22), 11),  # pectoralis
        ((0.58 * h, 0.45 * d, 0.86 * w), (1.0 * h, 20.0, w + 26), 19),  # latissimus and teres major
    )
    limbs = np.full(ax.shape, 60, np.float32)
    for start, end, radius in parts:
        np.minimum(limbs, capsule(z, y, ax, start, end, float(radius * bulk)), out=limbs)
    muscle[first:] = smooth_union(muscle[first:], limbs, 8)
    skin[first:] = smooth_union(skin[first:], limbs - np.float32(3 + 0.6 * s.fat), 26)


def _armpits(s: Subject, z, y, x, cage) -> np.ndarray:
    """Return minus the distance to the fat of the armpits, between pectoralis and latissimus."""
    half = (8 + s.armpit) * np.clip((np.abs(x) - 0.75 * s.half_width) / 70, 0.25, 1.2)
    q = ((z - 0.78 * s.lung_height) / 55) ** 2 + ((y + 14) / half) ** 2
    pit = (np.sqrt(q) - 1) * np.float32(s.armpit)
    return -np.maximum(pit, 13 - cage).astype(np.float32)
