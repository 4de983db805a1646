"""Organs inside the rib cage: mediastinum, diaphragm, abdominal organs, lungs.

All distances are in millimetres, negative inside, shaped (slice, row, column) float32 on the coarse grid.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.fields import ellipsoid, value_noise
from tfds_mosmed.ct_phantom.anatomy.mediastinum import build_mediastinum, landmarks
from tfds_mosmed.ct_phantom.anatomy.subject import Subject


@dataclasses.dataclass
class Organs:
    """Fields of the organs, and the positions at which the trees of the lungs begin."""

    mediastinum: np.ndarray  # outline towards the lungs, with its fat and everything above the apices
    core: np.ndarray  # heart, great vessels, oesophagus: soft tissue within that fat
    core_hu: np.ndarray | None  # its density where contrast medium makes it uneven
    diaphragm: np.ndarray  # negative below the domes; divided by their slope, so that the edge is as soft as the slab
    organ: np.ndarray  # liver, spleen, stomach
    organ_hu: np.ndarray
    gas: np.ndarray  # in stomach and colon
    lungs: np.ndarray  # cage without mediastinum and abdomen
    hilum: dict[str, np.ndarray]  # side -> (z, y, x) of the hilum
    carina: np.ndarray
    trachea_top: np.ndarray


def build_organs(subject: Subject, scan: Acquisition, wall: ChestWall, rng: np.random.Generator) -> Organs:
    """Compute the organs of a subject on the scan's coarse grid."""
    s = subject
    z, y, x = scan.axes()
    x = x - (s.tilt * (scan.z - 0.5 * s.lung_height))[:, None, None].astype(np.float32)
    dome, slope = _diaphragm(s, wall, z, y, x)
    # In plane, the edge is as soft as slab thickness and breathing smear the height of the dome.
    smear = np.hypot(scan.slab, scan.breathing) / scan.resolution
    diaphragm = ((z - dome) / np.sqrt(slope * slope + np.float32(smear * smear))).astype(np.float32)
    m = landmarks(s, scan, wall)
    core, envelope, core_hu = build_mediastinum(s, scan, wall, m, x, rng)
    envelope = np.minimum(envelope, -_apex(s, scan, wall, z, y, x))
    lungs = np.maximum(np.maximum(wall.cage, -envelope), -diaphragm)
    hilum = {
        "right": np.array([m.carina - 16, m.middle + 6, -34], np.float32),
        "left": np.array([m.carina - 18, m.middle + 6, 36], np.float32),
    }
    return Organs(
        mediastinum=envelope,
        core=core,
        core_hu=core_hu,
        diaphragm=diaphragm,
        **_abdomen(s, scan, wall, rng, x, dome),
        lungs=lungs.astype(np.float32),
        hilum=hilum,
        carina=np.array([m.carina, m.middle + 4, -2], np.float32),
        trachea_top=np.array([1.25 * s.lung_height, m.middle, 0], np.float32),
    )


def _diaphragm(s: Subject, wall: ChestWall, z, y, x):
    """Return the diaphragm's height and its slope, (slice, row, column); the outline of the cage differs by slice."""
    reference = int(np.argmin(np.abs(z[:, 0, 0] - 0.25 * s.lung_height)))
    a, my, b = s.half_width, float(wall.middle_y[reference]), s.half_depth
    dome = np.full((1, y.shape[1], x.shape[2]), -1e3, np.float32)
    x0 = x[reference : reference + 1]
    dy = (y - (my - 0.10 * b)) / b
    # The recess is deepest behind and shallow in front.
    share = np.clip(0.25 - 0.75 * dy, 0, 0.8)
    for side, top in ((-1, s.dome_right), (1, s.dome_left)):
        out = (x0 * side - 0.48 * a) / (0.54 * a)
        # Towards the midline, the domes sink no lower than the central tendon.
        dx = np.where(out > 0, out, 0.42 * out)
        level = np.clip(dx * dx + dy * dy, 0, 1.5)
        floor = 0.02 * s.lung_height + 0.55 * top * share
        height = top - (top - floor) * level ** np.float32(s.dome_power / 2)
        dome = np.maximum(dome, height - 1e3 * (x0 * side < -0.4 * a))
    gy, gx = np.gradient(dome[0], 3.0)
    return dome, np.minimum(np.hypot(gy, gx), 6)[None].astype(np.float32)


def _apex(s: Subject, scan, wall: ChestWall, z, y, x):
    """Return the distance to the rounded tops of the lungs."""
    top = int(np.argmin(np.abs(scan.z - 0.93 * s.lung_height)))
    q = ((np.abs(x) - 0.36 * s.half_width) / (0.42 * s.half_width)) ** 2
    q = q + ((y - wall.middle_y[top] - 4) / (0.72 * s.half_depth)) ** 2
    roof = s.lung_height * (1 - 0.2 * q)
    return ((z - roof) / 1.4).astype(np.float32)


def _abdomen(s: Subject, scan: Acquisition, wall: ChestWall, rng, x, dome) -> dict[str, np.ndarray]:
    """Return liver, spleen, stomach, kidneys and bowel with its gas, under the diaphragm."""
    top = s.dome_left
    count = int(np.searchsorted(scan.z, max(top, s.dome_right) + 2 * scan.slab))  # slices that show any of it
    z, y, _ = scan.axes()
    z, x = z[:count], x[:count]
    a, b = s.half_width, s.half_depth
    my = float(np.median(wall.middle_y))
    gap = 1 if s.layered else 3  # between the organs and the wall
    limit = np.maximum(wall.cage[:count] + gap + (gap + 2) * s.visceral_fat, (z - dome) / 1.5 + (gap - 1))
    edge = ellipsoid(0, y, x, (0, my + 0.1 * b, -0.62 * a), (1.0, 1.25 * b, 0.95 * a)) * np.float32(1.2 * b)
    edge = edge + 0.45 * np.maximum(s.dome_right - 15 - z, 0) + 5 * value_noise(rng, scan, 35)[:count]
    liver = np.maximum(edge, s.dome_right - rng.uniform(110, 160) - z)
    spleen = ellipsoid(z, y, x, (top - 62, my + 0.45 * b, 0.68 * a), (48, 38, 26))
    middle = (top - rng.uniform(42, 70), my - b * rng.uniform(0, 0.3), a * rng.uniform(0.3, 0.5))
    stomach = ellipsoid(z, y, x, middle, rng.uniform((40, 28, 26), (62, 50, 46)) * (1.3 if s.layered else 1))
    gas = np.maximum(stomach + 4, y - middle[1] + rng.uniform(-8, 45) + (25 if s.layered else 0))
    for _ in range(rng.integers(3, 9)):
        centre = (top - rng.uniform(60, 170), my - b * rng.uniform(0.2, 0.8), rng.uniform(-0.6, 0.8) * a)
        np.minimum(gas, ellipsoid(z, y, x, centre, rng.uniform(6, 20, 3)), out=gas)
    kidney = ellipsoid(z, y, np.abs(x), (top - 130, my + 0.42 * b, 56), (45, 24, 26))
    bowel = 22 - 16 * value_noise(rng, scan, 24)[:count] - 0.15 * np.maximum(top - 50 - z, -60)
    bowel = np.maximum(np.maximum(bowel, y - my - 0.25 * b), limit + 6)
    organ, hu = np.full(wall.cage.shape, 60, np.float32), np.full(wall.cage.shape, s.liver_hu, np.float32)
    nearest = np.minimum(np.minimum(liver, bowel), np.minimum(np.minimum(spleen, stomach), kidney))
    organ[:count] = np.maximum(limit, nearest)
    for part, value in ((stomach, rng.uniform(10, 55)), (spleen, s.spleen_hu), (kidney, s.kidney_hu)):
        hu[:count][part <= nearest] = value
    bubbles = np.full(wall.cage.shape, 60, np.float32)
    bubbles[:count] = np.maximum(gas, limit + 4)
    return {"organ": organ, "organ_hu": hu, "gas": bubbles}
