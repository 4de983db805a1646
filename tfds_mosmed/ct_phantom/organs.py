"""What lies inside the rib cage: diaphragm, heart and vessels of the mediastinum, abdominal organs, lungs.

All distances are in millimetres, negative inside, shaped (slice, row, column) float32 on the coarse grid.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.body import ChestWall
from tfds_mosmed.ct_phantom.fields import capsule, ellipsoid, profile, smooth_union, value_noise
from tfds_mosmed.ct_phantom.subject import Subject


@dataclasses.dataclass
class Organs:
    """Fields of the organs and the places where the trees of the lungs are rooted."""

    mediastinum: np.ndarray  # outline towards the lungs, fat and what lies above the apices included
    core: np.ndarray  # heart, great vessels, oesophagus: soft tissue within that fat
    diaphragm: np.ndarray  # negative below the domes; steepness folded in, so that the edge is as soft as the slab
    organ: np.ndarray  # liver, spleen, stomach
    organ_hu: np.ndarray
    gas: np.ndarray  # in stomach and colon
    lungs: np.ndarray  # cage without mediastinum and abdomen
    hilum: dict[str, np.ndarray]  # side -> (z, y, x) of the hilum
    carina: np.ndarray
    trachea_top: np.ndarray


def build_organs(subject: Subject, scan: Acquisition, wall: ChestWall, rng: np.random.Generator) -> Organs:
    """Organs of a subject on the scan's coarse grid."""
    s = subject
    z, y, x = scan.axes()
    x = x - (s.tilt * (scan.z - 0.5 * s.lung_height))[:, None, None].astype(np.float32)
    dome, slope = _diaphragm(s, wall, z, y, x)
    # A voxel's edge in plane is as soft as the slab (and the breath) smears the dome's height field.
    smear = np.hypot(scan.slab, scan.breathing) / scan.resolution
    diaphragm = ((z - dome) / np.sqrt(slope * slope + np.float32(smear * smear))).astype(np.float32)
    core, envelope, places = _mediastinum(s, scan, wall, z, y, x)
    envelope = np.minimum(envelope, -_apex(s, scan, wall, z, y, x))
    lungs = np.maximum(np.maximum(wall.cage, -envelope), -diaphragm)
    organ, organ_hu, gas = _abdomen(s, scan, wall, rng, z, y, x, dome)
    return Organs(envelope, core, diaphragm, organ, organ_hu, gas, lungs.astype(np.float32), *places)


def _diaphragm(s: Subject, wall: ChestWall, z, y, x):
    """Height of the diaphragm (slice, row, column) and its steepness; the outline of the cage differs by slice."""
    reference = int(np.argmin(np.abs(z[:, 0, 0] - 0.25 * s.lung_height)))
    a, my, b = s.half_width, float(wall.middle_y[reference]), s.half_depth
    dome = np.full((1, y.shape[1], x.shape[2]), -1e3, np.float32)
    x0 = x[reference : reference + 1]
    dy = (y - (my - 0.10 * b)) / b
    # The recess is deepest behind and shallow in front.
    share = np.clip(0.25 - 0.75 * dy, 0, 0.8)
    for side, top in ((-1, s.dome_right), (1, s.dome_left)):
        out = (x0 * side - 0.48 * a) / (0.54 * a)
        # Towards the midline the leaves sink to the central tendon only.
        dx = np.where(out > 0, out, 0.42 * out)
        level = np.clip(dx * dx + dy * dy, 0, 1.5)
        floor = 0.02 * s.lung_height + 0.55 * top * share
        height = top - (top - floor) * level ** np.float32(s.dome_power / 2)
        dome = np.maximum(dome, height - 1e3 * (x0 * side < -0.4 * a))
    gy, gx = np.gradient(dome[0], 3.0)
    return dome, np.minimum(np.hypot(gy, gx), 6)[None].astype(np.float32)


def _apex(s: Subject, scan, wall: ChestWall, z, y, x):
    """Rounded tops of the two lungs."""
    top = int(np.argmin(np.abs(scan.z - 0.93 * s.lung_height)))
    q = ((np.abs(x) - 0.36 * s.half_width) / (0.42 * s.half_width)) ** 2
    q = q + ((y - wall.middle_y[top] - 4) / (0.72 * s.half_depth)) ** 2
    roof = s.lung_height * (1 - 0.2 * q)
    return ((z - roof) / 1.4).astype(np.float32)


def _mediastinum(s: Subject, scan, wall: ChestWall, z, y, x):
    """Soft tissue (core), its fatty envelope, and the hila."""
    h, zc = s.lung_height, s.carina_z
    at = lambda height, curve: float(np.interp(height, scan.z, curve))  # noqa: E731
    my = at(zc, wall.middle_y)
    depth = at(zc, wall.half_depth)
    g, v = s.heart_scale, s.aorta_scale
    zh = zc - 22 - 42 * g
    yh = my - 0.28 * depth
    c, sn = np.cos(0.6), np.sin(0.6)
    hx, hy = x - s.heart_shift - 0.18 * (zh - z), y - yh + 0.12 * (zh - z)
    heart = ellipsoid(z - zh, c * hy - sn * hx, c * hx + sn * hy, (0, 0, 0), (50 * g, 47 * g, 62 * g))
    atrium = ellipsoid(z, y, x, (zc - 42, yh + 18, -22), (38 * g, 34 * g, 30 * g))
    core = smooth_union(heart, atrium, 14)
    core = smooth_union(core, ellipsoid(z, y, x, (zc - 30, my + 2, 2), (20 * g, 20 * g, 40 * g)), 8)
    yv = at(zc, wall.spine_y)
    ya = my - 0.42 * depth
    arch_z = zc + 24 + 5 * v
    trachea_y = my + 4
    tubes = [
        ((zc - 40, ya + 4, -4), (zc + 8, ya, -12), 15 * v),  # ascending aorta
        ((zc + 8, ya, -12), (arch_z, ya + 10, -6), 14 * v),
        ((arch_z, ya + 10, -6), (arch_z - 2, yv - 22, 22), 12.5 * v),  # arch
        ((arch_z - 2, yv - 22, 22), (zc - 10, yv - 24, 25), 12 * v),  # descending aorta
        ((zc - 10, yv - 24, 25), (0.3 * h, at(0.3 * h, wall.spine_y) - 27, 19), 11.5 * v),
        ((0.3 * h, at(0.3 * h, wall.spine_y) - 27, 19), (-60, at(-60, wall.spine_y) - 28, 8), 11 * v),
        ((zc - 35, ya + 2, 22), (zc - 12, ya + 8, 22), 14),  # pulmonary trunk and arteries
        ((zc - 12, ya + 8, 22), (zc - 8, my - 2, 38), 11),
        ((zc - 14, ya + 18, 10), (zc - 16, my - 4, -40), 10),
        ((zc - 50, ya + 16, -30), (0.93 * h, ya + 14, -22), 8.5),  # superior vena cava
        ((zh - 40, my + 8, -26), (zh - 110, my + 18, -24), 12),  # inferior vena cava
        ((0.9 * h, ya + 12, -20), (0.86 * h, ya + 6, 16), 6),  # brachiocephalic vein
        ((arch_z, ya + 12, -10), (1.1 * h, my - 6, -24), 6),  # arteries to head and arms
        ((arch_z, ya + 24, 6), (1.1 * h, my - 4, 20), 4.5),
        ((arch_z, my + 6, 16), (1.05 * h, my + 8, 34), 5),
        ((1.1 * h, trachea_y + 14, 5), (zc, trachea_y + 17, 6), 7),  # oesophagus
        ((zc, trachea_y + 17, 6), (zh - 40, at(zh - 40, wall.spine_y) - 32, 6), 7),
        ((zc - 8, my + 2, -18), (zc - 18, my + 6, -36), 9),  # hila
        ((zc - 12, my + 2, 18), (zc - 22, my + 6, 36), 9),
    ]
    for start, end, radius in tubes:
        core = smooth_union(core, capsule(z, y, x, start, end, radius), 4)
    spread = 2 + 7 * s.visceral_fat
    envelope = core - np.float32(spread)
    trachea = capsule(z, y, x, (zc, trachea_y, -2), (1.2 * h, trachea_y, 0), 13)
    envelope = smooth_union(envelope, trachea, 8)
    width = 3 + 14 * s.visceral_fat * profile({0.3: 0.6, 0.5: 1.0, 0.8: 0.6}, scan.z / h)[:, None, None]
    strip = np.maximum(np.abs(x) - width, y - my)
    strip = np.maximum(strip, zh - 40 - z)
    envelope = smooth_union(envelope, strip, 14)
    spine_y = wall.spine_y[:, None, None]
    spine = np.sqrt((x / 1.15) ** 2 + (y - spine_y) ** 2) - 16
    back = y - spine_y
    wedge = 0.85 * (np.abs(x) - 12 - 0.75 * np.clip(back, 0, 50)) + np.maximum(-back, 0)
    spine = smooth_union(spine, wedge, 10)
    envelope = smooth_union(envelope, spine, 12)
    core = np.minimum(core, spine + 3)
    neck = (np.abs(x) - 10) + (1.02 * h - z) * 0.7
    envelope = np.minimum(envelope, neck)
    fat_pad = ellipsoid(z, y, x, (zh - 36, yh - 26, s.heart_shift + 38), (30, 22, 26)) + 14 * (1 - s.visceral_fat)
    envelope = smooth_union(envelope, fat_pad, 10)
    hilum = {
        "right": np.array([zc - 16, my + 6, -34], np.float32),
        "left": np.array([zc - 18, my + 6, 36], np.float32),
    }
    carina = np.array([zc, trachea_y, -2], np.float32)
    top = np.array([1.25 * h, trachea_y - 4, 0], np.float32)
    return core.astype(np.float32), envelope.astype(np.float32), (hilum, carina, top)


def _abdomen(s: Subject, scan, wall: ChestWall, rng, z, y, x, dome):
    """Liver, spleen, stomach and bowel gas under the diaphragm."""
    a, b = s.half_width, s.half_depth
    my = float(np.median(wall.middle_y))
    inset = wall.cage + 3 + 5 * s.visceral_fat
    under = (z - dome) / 1.5 + 2
    limit = np.maximum(inset, under)
    drop = np.maximum(s.dome_right - 15 - z, 0)
    edge = ellipsoid(0, y, x, (0, my + 0.1 * b, -0.62 * a), (1.0, 1.25 * b, 0.95 * a)) * np.float32(1.2 * b)
    edge = edge + 0.45 * drop + 5 * value_noise(rng, scan, 35)
    liver = np.maximum(limit, np.maximum(edge, s.dome_right - rng.uniform(110, 160) - z))
    top = s.dome_left
    spleen = np.maximum(limit, ellipsoid(z, y, x, (top - 62, my + 0.45 * b, 0.68 * a), (48, 38, 26)))
    middle = (top - rng.uniform(42, 70), my - b * rng.uniform(0, 0.3), a * rng.uniform(0.3, 0.5))
    stomach = np.maximum(limit, ellipsoid(z, y, x, middle, rng.uniform((40, 28, 26), (62, 50, 46))))
    gas = np.maximum(stomach + 4, y - middle[1] + rng.uniform(-8, 45))
    for _ in range(rng.integers(3, 9)):
        centre = (top - rng.uniform(60, 170), my - b * rng.uniform(0.2, 0.8), rng.uniform(-0.6, 0.8) * a)
        gas = np.minimum(gas, np.maximum(limit + 4, ellipsoid(z, y, x, centre, rng.uniform(6, 20, 3))))
    kidney = np.minimum(
        ellipsoid(z, y, np.abs(x), (top - 130, my + 0.42 * b, 56), (45, 24, 26)),
        ellipsoid(z, y, x, (-70, my, 0), (60, 30, 40)),
    )
    kidney = np.maximum(kidney, limit)
    bowel = 22 - 16 * value_noise(rng, scan, 24) - 0.15 * np.maximum(top - 50 - z, -60)
    bowel = np.maximum(limit + 6, np.maximum(bowel, y - my - 0.25 * b))
    organ = np.minimum(np.minimum(liver, spleen), np.minimum(stomach, np.minimum(kidney, bowel)))
    hu = np.full(organ.shape, s.liver_hu, np.float32)
    hu[(stomach <= organ)] = rng.uniform(10, 55)
    hu[(spleen <= organ)] = 48
    hu[(kidney <= organ)] = 33
    return organ.astype(np.float32), hu, gas.astype(np.float32)
