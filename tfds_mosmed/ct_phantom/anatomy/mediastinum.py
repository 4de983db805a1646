"""Mediastinum: heart, great vessels and oesophagus, and the fat and spine around them."""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.fields import capsule, ellipsoid, profile, smooth_union, value_noise
from tfds_mosmed.ct_phantom.anatomy.population import Contrast
from tfds_mosmed.ct_phantom.anatomy.subject import Subject

REACH_MM = 105.0  # half-width of the part of the grid that is computed
FAR = np.float32(60)  # distance outside of it


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Positions in mm by which the structures of the mediastinum are placed."""

    carina: float  # z
    heart: float  # z of its centre
    heart_length: float  # half of its height
    middle: float  # y of the rib cage's middle at the carina
    depth: float  # half-depth of the rib cage there
    heart_y: float
    front: float  # y of the ascending aorta
    spine: np.ndarray  # (slice,) y of the vertebral bodies
    z: np.ndarray  # (slice,)

    def spine_at(self, z: float) -> float:
        """Return y of the vertebral body at a height."""
        return float(np.interp(z, self.z, self.spine))


def landmarks(s: Subject, scan: Acquisition, wall: ChestWall) -> Landmarks:
    """Compute the landmarks of a subject."""
    middle = float(np.interp(s.carina_z, scan.z, wall.middle_y))
    depth = float(np.interp(s.carina_z, scan.z, wall.half_depth))
    # The heart rests on the diaphragm: a deep breath makes it long and slender.
    top = s.carina_z - 20
    bottom = min(top - 90 * s.heart_scale, s.dome_left - 10)
    heart_z, heart_length = (top + bottom) / 2, (top - bottom) / 2
    return Landmarks(
        s.carina_z,
        heart_z,
        heart_length,
        middle,
        depth,
        middle - s.heart_front * depth,
        middle - 0.42 * depth,
        wall.spine_y,
        scan.z,
    )


# The compartment of the blood in each of the `great_vessels`.
COMPARTMENTS = (
    ("left",) * 6 + ("pulmonary",) * 3 + ("cava", "right", "cava") + ("left",) * 3 + ("",) * 2 + ("pulmonary",) * 2
)


def great_vessels(s: Subject, m: Landmarks) -> list[tuple]:
    """Return straight pieces (start, end, radius) of aorta and its branches, pulmonary arteries, veins, oesophagus."""
    h, c, v = s.lung_height, m.carina, s.aorta_scale
    arch = c + 24 + 5 * v
    low = 0.3 * h
    behind = m.spine_at(c)
    return [
        ((c - 40, m.front + 4, -4), (c + 8, m.front, -12), 15 * v),  # ascending aorta
        ((c + 8, m.front, -12), (arch, m.front + 10, -6), 14 * v),
        ((arch, m.front + 10, -6), (arch - 2, behind - 22, 22), 12.5 * v),  # arch
        ((arch - 2, behind - 22, 22), (c - 10, behind - 24, 25), 12 * v),  # descending aorta
        ((c - 10, behind - 24, 25), (low, m.spine_at(low) - 27, 19), 11.5 * v),
        ((low, m.spine_at(low) - 27, 19), (-60, m.spine_at(-60) - 28, 8), 11 * v),
        ((c - 35, m.front + 2, 22), (c - 12, m.front + 8, 22), 14),  # pulmonary trunk and arteries
        ((c - 12, m.front + 8, 22), (c - 8, m.middle - 2, 38), 11),
        ((c - 14, m.front + 18, 10), (c - 16, m.middle - 4, -40), 10),
        ((c - 50, m.front + 16, -30), (0.93 * h, m.front + 14, -22), 8.5),  # superior vena cava
        ((m.heart - 40, m.middle + 8, -26), (m.heart - 110, m.middle + 18, -24), 12),  # inferior vena cava
        ((0.9 * h, m.front + 12, -20), (0.86 * h, m.front + 6, 16), 6),  # brachiocephalic vein
        ((arch, m.front + 12, -10), (1.1 * h, m.middle - 6, -24), 6),  # arteries to head and arms
        ((arch, m.front + 24, 6), (1.1 * h, m.middle - 4, 20), 4.5),
        ((arch, m.middle + 6, 16), (1.05 * h, m.middle + 8, 34), 5),
        ((1.1 * h, m.middle + 18, 5), (c, m.middle + 21, 6), 7),  # oesophagus
        ((c, m.middle + 21, 6), (m.heart - 40, m.spine_at(m.heart - 40) - 32, 6), 7),
        ((c - 8, m.middle + 2, -18), (c - 18, m.middle + 6, -36), 9),  # hila
        ((c - 12, m.middle + 2, 18), (c - 22, m.middle + 6, 36), 9),
    ]


def build_mediastinum(
    s: Subject, scan: Acquisition, wall: ChestWall, m: Landmarks, x: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Compute the signed distances to the soft tissue, and to its envelope of fat and spine, on the coarse grid.

    Args:
      s: the person.
      scan: the scan.
      wall: chest wall.
      m: landmarks.
      x: columns of the coarse grid in the subject's own, tilted frame (slice, 1, column).
      rng: source of the irregular grooves of the heart.

    Returns:
      Soft tissue and envelope, each (slice, row, column) float32, mm; and the soft tissue's HU, None where it is even.
    """
    z, y, _ = scan.axes()
    columns = slice(*np.searchsorted(scan.coarse_x, [-REACH_MM, REACH_MM]))
    low, high = float(np.min(wall.middle_y - 1.3 * wall.half_depth)), float(wall.spine_y.max()) + 60
    rows = slice(*np.searchsorted(scan.coarse_y, [low, high]))
    grooves = value_noise(rng, scan, 22)[:, rows, columns]
    x, y = x[:, :, columns], y[:, rows]
    core = _heart(s, m, z, y, x) + 2.5 * np.maximum(grooves - 0.6, 0)
    blood = _chambers(s, s.contrast, m, z, y, x) if s.contrast else None
    for (start, end, radius), compartment in zip(great_vessels(s, m), COMPARTMENTS, strict=True):
        tube = capsule(z, y, x, start, end, radius)
        core = smooth_union(core, tube, 4)
        if blood is not None:
            blood = np.where(tube < 1, getattr(s.contrast, compartment, 45.0), blood)
    envelope = _envelope(s, scan, m, core - np.float32(1.5 + 5 * s.visceral_fat), z, y, x)
    spine = _paraspinal(wall, y, x)
    envelope = smooth_union(envelope, spine, 12)
    core = np.minimum(core, np.maximum(spine + 3, wall.cage[:, rows, columns] - 4))
    result = []
    for field in (core, envelope):
        full = np.full(wall.cage.shape, FAR, np.float32)
        full[:, rows, columns] = field
        result.append(full)
    if blood is None:
        return result[0], result[1], None
    full = np.full(wall.cage.shape, s.blood_hu, np.float32)
    full[:, rows, columns] = blood
    return result[0], result[1], full


def _chambers(s: Subject, contrast: Contrast, m: Landmarks, z, y, x) -> np.ndarray:
    """Return the HU of the heart with contrast medium: both ventricles and atria within the myocardium."""
    g, length = s.heart_scale, m.heart_length
    c, sn = np.cos(0.6), np.sin(0.6)
    down = m.heart - z
    hx, hy = x - s.heart_shift - 0.18 * down, y - m.heart_y + 0.12 * down
    along, across = c * hx + sn * hy, c * hy - sn * hx
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), contrast.myocardium, np.float32)
    for part, value in (
        (ellipsoid(down, across, along, (0, 8 * g, 16 * g), (0.75 * length, 20 * g, 36 * g)), contrast.left),
        (ellipsoid(down, across, along, (0, -26 * g, -6 * g), (0.8 * length, 16 * g, 40 * g)), contrast.right),
        (ellipsoid(z, y, x, (m.carina - 42, m.heart_y + 18, -22), (34 * g, 28 * g, 24 * g)), contrast.right),
        (ellipsoid(z, y, x, (m.carina - 30, m.middle + 2, 2), (18 * g, 17 * g, 36 * g)), contrast.left),
    ):
        hu[part < 0] = value
    return hu


def _heart(s: Subject, m: Landmarks, z, y, x) -> np.ndarray:
    """Return the distance to the ventricles, on an axis that points down, left and to the front, and to the atria."""
    g = s.heart_scale
    c, sn = np.cos(0.6), np.sin(0.6)
    down = m.heart - z
    hx, hy = x - s.heart_shift - 0.18 * down, y - m.heart_y + 0.12 * down
    heart = ellipsoid(down, c * hy - sn * hx, c * hx + sn * hy, (0, 0, 0), (m.heart_length + 6, 46 * g, 60 * g))
    right = ellipsoid(z, y, x, (m.carina - 42, m.heart_y + 18, -20), (38 * g, 32 * g, 28 * g))
    left = ellipsoid(z, y, x, (m.carina - 30, m.middle + 2, 2), (20 * g, 20 * g, 40 * g))
    return smooth_union(smooth_union(heart, right, 14), left, 8)


def _envelope(s: Subject, scan: Acquisition, m: Landmarks, core, z, y, x) -> np.ndarray:
    """Return the outline towards the lungs: the core with its fat, trachea, fat behind the sternum and at the apex."""
    h = s.lung_height
    trachea = capsule(z, y, x, (m.carina, m.middle + 4, -2), (1.2 * h, m.middle + 4, 0), 13)
    envelope = smooth_union(core, trachea, 8)
    width = profile({0.3: 0.6, 0.5: 1.0, 0.8: 0.6}, scan.z / h)[:, None, None]
    strip = np.abs(x) - (1 if s.layered else 3) - 14 * s.visceral_fat * width
    if s.layered:  # the fat behind the sternum is a wedge, and a thin leaf joins it to the heart
        wall = np.float32(m.middle - m.depth)
        leaf = np.abs(x) - 1 - 3 * s.visceral_fat
        strip = np.minimum(leaf, 0.85 * (np.abs(x) - 0.6 * (10 + 26 * s.visceral_fat * width - (y - wall))))
    strip = np.maximum(np.maximum(strip, y - m.middle), m.heart - 40 - z)
    envelope = smooth_union(envelope, strip, 6 if s.layered else 14)
    envelope = np.minimum(envelope, np.abs(x) - 10 + (1.02 * h - z) * 0.7)
    if s.layered:  # the oesophagus and the fat around it join the heart to the spine
        leaf = np.maximum(np.abs(x - 6) - 8 - 5 * s.visceral_fat, m.heart_y - y)
        envelope = smooth_union(envelope, np.maximum(leaf, z - m.carina), 8)
    pad = (m.heart - 36, m.heart_y - 26, s.heart_shift + 38)
    fat_pad = ellipsoid(z, y, x, pad, (30, 22, 26)) + 14 * (1 - s.visceral_fat)
    return smooth_union(envelope, fat_pad, 10)


def _paraspinal(wall: ChestWall, y, x) -> np.ndarray:
    """Return the distance to the vertebral bodies with the wedge of muscle beside and behind them."""
    back = y - wall.spine_y[:, None, None]
    body = np.sqrt((x / 1.15) ** 2 + back**2) - 16
    wedge = 0.85 * (np.abs(x) - 12 - 0.75 * np.clip(back, 0, 50)) + np.maximum(-back, 0)
    return smooth_union(body, wedge, 10)
