"""Chest wall as smooth fields on the coarse grid: skin, muscles, rib cage, ribs, bones, spine.

All distances are in millimetres, negative inside, shaped (slice, row, column) float32.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.fields import capsule, ellipsoid, profile, smooth_union
from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.anatomy.torso import build_torso, raised_elbow, shoulder


@dataclasses.dataclass
class ChestWall:
    """Fields of the chest wall, and the curves by which the organs are placed."""

    skin: np.ndarray
    muscle: np.ndarray  # inside: muscle or deeper; between it and the skin: fat
    cage: np.ndarray  # inner surface of the rib cage
    rib_height: np.ndarray  # height between two ribs, in pitches: whole numbers lie on a rib
    front: np.ndarray  # 1 on the front of the rib cage, -1 on the back
    bone: np.ndarray  # spine, sternum, scapulae, clavicles, humeri
    canal: np.ndarray  # spinal canal
    spine_y: np.ndarray  # (slice,) y of the vertebral bodies' centres
    half_width: np.ndarray  # (slice,) of the rib cage
    middle_y: np.ndarray  # (slice,) y of its centre
    half_depth: np.ndarray  # (slice,)
    back_of_body: float  # largest y of the skin


# Outlines by height, in lung heights: shares of the rib cage's greatest half-width and half-depth ...
CAGE_WIDTH = {-0.6: 0.86, -0.2: 0.95, 0.05: 1.0, 0.35: 1.0, 0.55: 0.97, 0.72: 0.88, 0.84: 0.74, 0.93: 0.58, 1.1: 0.4}
CAGE_DEPTH = {-0.5: 0.9, 0.0: 0.98, 0.3: 1.0, 0.5: 0.96, 0.7: 0.82, 0.85: 0.66, 1.05: 0.46}
# ... and in mm: its middle, the effect of kyphosis on that, muscles at the side, in front, behind, and spine to back.
MIDDLE = {-0.4: -4, 0.1: 0, 0.5: 0, 0.75: 1, 0.9: 6, 1.1: 12}
KYPHOSIS = {-0.3: -0.2, 0.15: 0.1, 0.5: 0.2, 0.8: -0.1, 1.1: -0.8}
SIDE = {-0.4: 8, 0.2: 6, 0.45: 9, 0.6: 18, 0.75: 36, 0.88: 66, 1.1: 95}
FRONT = {-0.3: 7, 0.4: 8, 0.55: 12, 0.75: 17, 0.95: 24, 1.1: 22}
BACK = {-0.3: 26, 0.2: 22, 0.6: 24, 0.9: 34, 1.1: 38}
SPINE = {-0.3: 40, 0.2: 44, 0.5: 45, 0.8: 33, 1.0: 20}


def build_chest_wall(subject: Subject, scan: Acquisition) -> ChestWall:
    """Compute the chest wall of a subject on the scan's coarse grid."""
    s = subject
    z, y, x = scan.axes()
    u = scan.z / s.lung_height
    half_width, half_depth = s.half_width * profile(CAGE_WIDTH, u), s.half_depth * profile(CAGE_DEPTH, u)
    middle_y = profile(MIDDLE, u) + s.kyphosis * profile(KYPHOSIS, u)
    ya = (y - middle_y[:, None, None]).astype(np.float32)
    x = x - (s.tilt * (scan.z - 0.5 * s.lung_height))[:, None, None].astype(np.float32)
    x = x - np.float32(s.lean) * ya
    if s.sides:
        x = x + np.float32(s.sides) * np.abs(x)
    a, b = (v[:, None, None].astype(np.float32) for v in (half_width, half_depth))
    # Behind, the lungs bulge on both sides of the spine.
    dent = s.gutter * np.exp(-((x / (0.30 * a)) ** 2)) - s.bulge
    yc = ya - s.barycentre * b
    cage, r = _superellipse(x, yc, a, b * (1 + s.barycentre), b * (1 - s.barycentre) * (1 - dent), s.squareness)
    front = -yc / np.maximum(r, 1)  # cosine of the angle from the front
    rib_height = _rib_height(s, z, x, front)
    spine_y = (middle_y + half_depth - profile(SPINE, u) + s.spine_mm).astype(np.float32)
    if s.layered:
        cage = cage + _unevenness(s, scan, rib_height)
        muscle, skin, depth = build_torso(s, scan, z, y, x, cage, front, spine_y)
        skin = _with_breasts(skin, s, z, ya, x, b + 16)
        scapula = cage - 11 - 0.5 * depth
        back = float(spine_y.max()) + 64 + 0.3 * s.fat
    else:
        muscle, skin, behind = _soft_wall(s, z, x, ya, u, a, b)
        scapula = cage - (15 + 8 * s.muscle) - 26 * (front + 0.45) * (u[:, None, None] - 0.2)
        back = float((middle_y + behind).max())
    if s.arms_down:
        muscle, skin = _with_arms(s, z, y, x, muscle, skin)
    bone, canal = _spine(s, z, y, x, spine_y)
    bone = np.minimum(bone, _girdle(s, scan, z, y, x, scapula, front, middle_y, half_depth, u))
    if s.layered:
        skin, muscle = np.minimum(skin, bone - 5), np.minimum(muscle, bone - 1)
    return ChestWall(
        skin=skin,
        muscle=muscle,
        cage=cage,
        rib_height=rib_height,
        front=front,
        bone=bone,
        canal=canal,
        spine_y=spine_y,
        half_width=half_width,
        middle_y=middle_y.astype(np.float32),
        half_depth=half_depth,
        back_of_body=back,
    )


def _rib_height(s: Subject, z, x, front) -> np.ndarray:
    """Return the height between two ribs: a rib leaves the spine, runs round the cage and falls towards the front."""
    turn = 1 - np.arccos(np.clip(front, -1, 1)) / np.pi  # 0 at the spine, 1 at the sternum
    height = (z + s.rib_drop * (turn - 0.3 * turn * turn)) / s.rib_pitch
    return (height + s.rib_phase + 0.12 * np.sign(x)).astype(np.float32)


def _unevenness(s: Subject, scan: Acquisition, rib_height) -> np.ndarray:
    """Return by how much the rib cage is narrower than its smooth form, mm: the lungs bulge between the ribs."""
    waves = (
        np.sin(scan.coarse_x / 41 + 6 * s.rib_phase)[None, :] * np.sin(scan.coarse_y / 36 + 6 * s.disc_phase)[:, None]
    )
    waves = 2.5 * waves.astype(np.float32) * np.cos(scan.z / 70 + 9 * s.rib_phase)[:, None, None].astype(np.float32)
    gap = np.abs(rib_height - np.rint(rib_height))  # 0 on a rib, 0.5 between two
    return waves + np.float32(1.3) - np.float32(5.2) * gap


def _soft_wall(s: Subject, z, x, y, u, a, b) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances to muscles and skin, and the skin's depth behind, (slice,); y is from the rib cage's middle."""
    side, front, back = (s.muscle * profile(p, u)[:, None, None] for p in (SIDE, FRONT, BACK))
    side, front, back = a + 8 + side, b + 6 + front, b + 10 + back
    muscle, _ = _superellipse(x, y, side, front, back, 2.2)
    # Fat fills the armpits, between the chest and the muscles of the shoulders.
    pit = ((z - 0.80 * s.lung_height) / 45) ** 2 + ((y + 8) / 26) ** 2 + ((np.abs(x) - a - 24) / s.armpit) ** 2
    muscle = np.maximum(muscle, (1 - np.sqrt(pit)) * np.float32(s.armpit))
    belly = 0.7 + 0.5 * s.visceral_fat * (u < 0.2)[:, None, None]
    behind = back + 3 + 0.6 * s.fat
    skin, _ = _superellipse(x, y, side + 2 + s.fat, front + 2 + s.fat * belly, behind, s.skin_power)
    return muscle.astype(np.float32), _with_breasts(skin, s, z, y, x, front), behind[:, 0, 0]


def arm_line(s: Subject) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return shoulder and hand of a left arm beside the body, (z, y, x) mm."""
    h, w = s.lung_height, s.half_width
    return (1.02 * h, 12.0, w + 30), (-0.5 * h, 14 + 0.3 * s.fat, w + 26 + s.fat + s.arm)


def _with_arms(s: Subject, z, y, x, muscle, skin) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances to muscles and skin with arms beside the body; folds of skin stay between them."""
    reach = np.abs(x)
    muscle = smooth_union(muscle, capsule(z, y, reach, *arm_line(s), 0.72 * s.arm), 6)
    return muscle.astype(np.float32), smooth_union(skin, capsule(z, y, reach, *arm_line(s), s.arm), 4)


def _superellipse(x, y, a, front, back, power):
    """Return the radial distance to a superellipse of different depth in front and behind, and each point's radius."""
    dx = np.abs(x) / a
    dy = np.where(y < 0, -y / front, y / back)
    level = np.maximum(dx**power + dy**power, np.float32(1e-6)) ** np.float32(1 / power)
    r = np.sqrt(x * x + y * y)
    return (r * (1 - 1 / level)).astype(np.float32), r


def _with_breasts(skin, s: Subject, z, y, x, front_depth):
    if s.breast < 3:
        return skin
    centre_z = 0.42 * s.lung_height
    q = ((z - centre_z) / 62) ** 2 + ((np.abs(x) - 0.68 * s.half_width) / (58 + 0.4 * s.breast)) ** 2
    thick = np.float32(0.75 * s.breast + 22)
    q = q + ((y + front_depth - 14) / thick) ** 2
    return smooth_union(skin, ((np.sqrt(q) - 1) * thick).astype(np.float32), 34)


def _spine(s: Subject, z, y, x, spine_y):
    """Return distances to the vertebrae with their processes, and to the spinal canal."""
    columns = slice(*np.searchsorted(x.mean((0, 1)), [-60, 60]))
    full = np.full((2, *x.shape), 60, np.float32)
    x = x[:, :, columns]
    dy = y - spine_y[:, None, None].astype(np.float32)
    size = 1.0 if not s.female else 0.9
    phase = np.mod(z / 25 + s.disc_phase, 1)
    waist = np.float32(1.5) * np.sin(np.pi * phase).astype(np.float32)
    q = np.sqrt((x / (19 * size)) ** 2 + (dy / (15.5 * size)) ** 2)
    body = (q - 1) * np.float32(16 * size) + waist
    canal = np.sqrt(x * x / 1.3 + (dy - 23 * size) ** 2) - 8
    arch = np.abs(canal) - 2.5
    arch = np.maximum(arch, 3 - dy)
    arch = arch + np.float32(2.0) * (phase > 0.7)
    spinous = capsule(0, dy, x, (0, 33 * size, 0), (0, 56 * size, 0), 3.6) + 1.5 * np.cos(2 * np.pi * phase)
    transverse = capsule(0, dy, np.abs(x), (0, 22 * size, 10), (0, 31 * size, 32), 5.0) + 5 * (phase > 0.55)
    bone = np.minimum(np.minimum(body, arch), np.minimum(spinous, transverse))
    full[0, :, :, columns], full[1, :, :, columns] = bone, canal
    return full[0], full[1]


def _girdle(s: Subject, scan, z, y, x, scapula, front, middle_y, half_depth, u):
    """Return the distance to sternum, scapulae, clavicles and the heads of the humeri of raised arms.

    `scapula` is the distance to the surface in which the shoulder blades glide on the back of the cage.
    """
    ax = np.abs(x)
    surface = (middle_y - half_depth)[:, None, None].astype(np.float32)
    h = s.lung_height
    sternum_half = profile({0.3: 8, 0.4: 15, 0.7: 15, 0.82: 24, 0.86: 24}, u)[:, None, None]
    sternum = (((ax / sternum_half) ** 4 + ((y - surface + 8) / 5.5) ** 4) ** 0.25 - 1) * 5.5
    sternum = np.maximum(sternum, np.maximum(0.30 * h - z, z - 0.87 * h))
    # Shoulder blade: a thin plate gliding on the back of the cage.
    reach = profile({0.4: 0.02, 0.5: 0.2, 0.7: 0.36, 0.9: 0.42, 1.0: 0.40, 1.08: 0.1}, u)[:, None, None]
    plate = np.abs(scapula) - 2.2
    scapula = np.maximum(plate, (np.abs(front + 0.42) - reach) * 90)
    scapula = np.maximum(scapula, np.maximum(0.44 * h - z, z - 1.06 * h))
    bone = np.minimum(sternum, scapula).astype(np.float32)
    first = int(np.searchsorted(scan.z, 0.8 * h))  # the shoulders
    if first < len(scan.z):
        z, ax, w = z[first:], ax[first:], s.half_width
        my = float(middle_y[min(np.searchsorted(scan.z, 0.9 * h), len(scan.z) - 1)])
        clavicle = capsule(z, y, ax, (0.90 * h, my - 0.55 * s.half_depth, 18), (1.06 * h, my - 4, w + 8), 5.5)
        head = capsule(z, y, ax, (1.04 * h, my + 10, w + 28), (1.3 * h, my - 20, w + 48), 21)
        glenoid = capsule(z, y, ax, (1.03 * h, my + 16, w - 2), (1.05 * h, my + 34, w - 22), 9)
        if s.layered:
            shaft = capsule(z, y, ax, shoulder(s), raised_elbow(s), 11)
            head = np.minimum(shaft, ellipsoid(z, y, ax, shoulder(s), (22, 22, 22)))
        if s.arms_down:
            head = capsule(z, y, ax, (1.04 * h, my + 10, w + 28), (0.98 * h, my + 12, w + 32), 21)
        bone[first:] = np.minimum(np.minimum(bone[first:], clavicle), np.minimum(head, glenoid))
    if s.arms_down:
        bone = np.minimum(bone, capsule(scan.axes()[0], y, np.abs(x), *arm_line(s), 10))
    return bone
