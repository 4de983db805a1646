"""The chest wall as smooth fields on the coarse grid: skin, muscles, rib cage, ribs, bones, spine.

All distances are in millimetres, negative inside, shaped (slice, row, column) float32.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.fields import capsule, profile, smooth_union
from tfds_mosmed.ct_phantom.subject import Subject


@dataclasses.dataclass
class ChestWall:
    """Fields of the wall, and the curves that the organs hang on."""

    skin: np.ndarray
    muscle: np.ndarray  # inside: muscle or deeper; between it and the skin: fat
    cage: np.ndarray  # inner surface of the rib cage
    rib_height: np.ndarray  # place between two ribs, in pitches: whole numbers lie on a rib
    front: np.ndarray  # 1 on the front of the rib cage, -1 on the back
    bone: np.ndarray  # spine, sternum, scapulae, clavicles, humeri
    canal: np.ndarray  # spinal canal
    spine_y: np.ndarray  # (slice,) y of the vertebral bodies' centres
    half_width: np.ndarray  # (slice,) of the rib cage
    middle_y: np.ndarray  # (slice,) y of its centre
    half_depth: np.ndarray  # (slice,)
    back_of_body: float  # largest y of the skin


def build_chest_wall(subject: Subject, scan: Acquisition) -> ChestWall:
    """Chest wall of a subject on the scan's coarse grid."""
    s = subject
    z, y, x = scan.axes()
    u = scan.z / s.lung_height
    half_width = s.half_width * profile(
        {
            -0.6: 0.86,
            -0.2: 0.95,
            0.05: 1.0,
            0.35: 1.0,
            0.55: 0.97,
            0.72: 0.88,
            0.84: 0.74,
            0.93: 0.58,
            1.1: 0.4,
        },
        u,
    )
    half_depth = s.half_depth * profile(
        {-0.5: 0.9, 0.0: 0.98, 0.3: 1.0, 0.5: 0.96, 0.7: 0.82, 0.85: 0.66, 1.05: 0.46}, u
    )
    middle_y = profile({-0.4: -4, 0.1: 0, 0.5: 0, 0.75: 1, 0.9: 6, 1.1: 12}, u) + s.kyphosis * (
        profile({-0.3: 0.6, 0.15: 0.9, 0.5: 1.0, 0.8: 0.7, 1.1: 0.0}, u) - 0.8
    )
    shift = s.tilt * (scan.z - 0.5 * s.lung_height)
    x = x - shift[:, None, None].astype(np.float32)
    ya = y - middle_y[:, None, None].astype(np.float32)
    x = x - np.float32(s.lean) * ya

    a, b = (v[:, None, None].astype(np.float32) for v in (half_width, half_depth))
    # Behind, the lungs bulge on both sides of the spine.
    dent = s.gutter * np.exp(-((x / (0.30 * a)) ** 2)) - 0.2
    yc = ya - s.barycentre * b
    cage, r = _superellipse(x, yc, a, b * (1 + s.barycentre), b * (1 - s.barycentre) * (1 - dent), s.squareness)
    front = -yc / np.maximum(r, 1)  # cosine of the angle from the front
    t = s.muscle
    am = half_width + 8 + t * profile({-0.4: 8, 0.2: 7, 0.45: 10, 0.6: 22, 0.75: 45, 0.88: 75, 1.1: 100}, u)
    bf = half_depth + 6 + t * profile({-0.3: 7, 0.4: 8, 0.55: 12, 0.75: 17, 0.95: 24, 1.1: 22}, u)
    bb = half_depth + 10 + t * profile({-0.3: 26, 0.2: 22, 0.6: 24, 0.9: 34, 1.1: 38}, u)
    am, bf, bb = (v[:, None, None].astype(np.float32) for v in (am, bf, bb))
    muscle, _ = _superellipse(x, ya, am, bf, bb, 2.2)
    fat = s.fat
    skin, _ = _superellipse(
        x,
        ya,
        am + 2 + fat,
        bf + 2 + fat * (0.7 + 0.5 * s.visceral_fat * (u < 0.2)[:, None, None]),
        bb + 3 + 0.6 * fat,
        2.25,
    )
    skin = _with_breasts(skin, s, z, y, x, middle_y, bf)
    back = float((middle_y + bb[:, 0, 0] + 3 + 0.6 * fat).max())

    spine_y = middle_y + half_depth - profile({-0.3: 40, 0.2: 44, 0.5: 45, 0.8: 33, 1.0: 20}, u)
    bone, canal = _spine(s, z, y, x, spine_y)
    bone = np.minimum(bone, _girdle(s, scan, z, y, x, cage, front, middle_y, half_depth, u))
    # A rib leaves the spine, runs round the cage and falls towards the front.
    turn = 1 - np.arccos(np.clip(front, -1, 1)) / np.pi  # 0 at the spine, 1 at the sternum
    height = (
        (z + np.float32(s.rib_drop) * (turn - 0.3 * turn * turn)) / np.float32(s.rib_pitch)
        + np.float32(s.rib_phase)
        + np.float32(0.12) * np.sign(x)
    )
    return ChestWall(
        skin, muscle, cage, height.astype(np.float32), front, bone, canal,
        spine_y.astype(np.float32), half_width, middle_y.astype(np.float32), half_depth, back,
    )  # fmt: skip


def _superellipse(x, y, a, front, back, power):
    """Radial distance to a superellipse with its own depth in front and behind, and the radius of each point."""
    dx = np.abs(x) / a
    dy = np.where(y < 0, -y / front, y / back)
    level = np.maximum(dx**power + dy**power, np.float32(1e-6)) ** np.float32(1 / power)
    r = np.sqrt(x * x + y * y)
    return (r * (1 - 1 / level)).astype(np.float32), r


def _with_breasts(skin, s: Subject, z, y, x, middle_y, front_depth):
    if s.breast < 3:
        return skin
    centre_z = 0.42 * s.lung_height
    surface = middle_y[:, None, None] - front_depth
    q = ((z - centre_z) / 62) ** 2 + ((np.abs(x) - 0.68 * s.half_width) / (58 + 0.4 * s.breast)) ** 2
    thick = np.float32(0.75 * s.breast + 22)
    q = q + ((y - surface - 14) / thick) ** 2
    return smooth_union(skin, ((np.sqrt(q) - 1) * thick).astype(np.float32), 34)


def _spine(s: Subject, z, y, x, spine_y):
    """Vertebrae with discs, processes and canal; returns (bone, canal)."""
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


def _girdle(s: Subject, scan, z, y, x, cage, front, middle_y, half_depth, u):
    """Sternum, scapulae, clavicles and the heads of the humeri of raised arms."""
    ax = np.abs(x)
    surface = (middle_y - half_depth)[:, None, None].astype(np.float32)
    h = s.lung_height
    level = u[:, None, None]
    sternum_half = profile({0.3: 8, 0.4: 15, 0.7: 15, 0.82: 24, 0.86: 24}, u)[:, None, None]
    sternum = (((ax / sternum_half) ** 4 + ((y - surface + 8) / 5.5) ** 4) ** 0.25 - 1) * 5.5
    sternum = np.maximum(sternum, np.maximum(0.30 * h - z, z - 0.87 * h))
    # Shoulder blade: a thin plate gliding on the back of the cage.
    reach = profile({0.4: 0.02, 0.5: 0.2, 0.7: 0.36, 0.9: 0.42, 1.0: 0.40, 1.08: 0.1}, u)[:, None, None]
    plate = np.abs(cage - (15 + 8 * s.muscle) - 26 * (front + 0.45) * (level - 0.2)) - 2.2
    scapula = np.maximum(plate, (np.abs(front + 0.42) - reach) * 90)
    scapula = np.maximum(scapula, np.maximum(0.44 * h - z, z - 1.06 * h))
    bone = np.minimum(sternum, scapula).astype(np.float32)
    first = int(np.searchsorted(scan.z, 0.8 * h))  # the shoulders
    if first < scan.slices:
        z, ax, w = z[first:], ax[first:], s.half_width
        my = float(middle_y[min(np.searchsorted(scan.z, 0.9 * h), scan.slices - 1)])
        clavicle = capsule(z, y, ax, (0.90 * h, my - 0.55 * s.half_depth, 18), (1.06 * h, my - 4, w + 8), 5.5)
        head = capsule(z, y, ax, (1.04 * h, my + 10, w + 28), (1.3 * h, my - 20, w + 48), 21)
        glenoid = capsule(z, y, ax, (1.03 * h, my + 16, w - 2), (1.05 * h, my + 34, w - 22), 9)
        bone[first:] = np.minimum(np.minimum(bone[first:], clavicle), np.minimum(head, glenoid))
    return bone
