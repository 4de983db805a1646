"""Rendering of fields and trees into the slices of a scan."""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition, Noise, background
from tfds_mosmed.ct_phantom.anatomy import vessels
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.fields import fissure, value_noise
from tfds_mosmed.ct_phantom.anatomy.organs import Organs
from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.disease.opacities import Opacity

CORTEX_HU = 850.0


@dataclasses.dataclass
class Trees:
    """Blood vessels, and airways by their outer wall and their lumen."""

    blood: vessels.Tubes
    wall: vessels.Tubes
    lumen: vessels.Tubes


@dataclasses.dataclass
class Scene:
    """Everything that a study is drawn from."""

    subject: Subject
    scan: Acquisition
    wall: ChestWall
    organs: Organs
    trees: Trees
    opacities: list[Opacity]
    motion: bool


def build_trees(subject: Subject, scan: Acquisition, organs: Organs, rng: np.random.Generator) -> Trees:
    """Grow arteries, veins and airways into the lungs."""
    z, y, x = scan.axes()
    inside = np.argwhere(organs.lungs < -4)
    positions = np.stack([z[inside[:, 0], 0, 0], y[0, inside[:, 1], 0], x[0, 0, inside[:, 2]]], 1)
    weight = 1 + 0.6 * (positions[:, 1] / subject.half_depth)  # vessels are wider in the dependent parts of the lungs
    weight = np.clip(weight, 0.3, None)
    roots, headings, targets = [], [], []
    for side, sign in (("right", -1), ("left", 1)):
        own = positions[:, 2] * sign > 0
        p = weight[own] / weight[own].sum()
        for below in (0, -12):  # arteries, then veins from a root below
            count = subject.num_vessels // 2
            chosen = positions[own][rng.choice(own.sum(), count, p=p)]
            chosen = chosen + rng.uniform((-4, -1.5, -1.5), (4, 1.5, 1.5), (count, 3))
            roots.append(organs.hilum[side] + (below, below / 2, -sign * 4))
            headings.append(np.array([-0.2, 0.2, sign]) / 1.04)
            targets.append(chosen)
    branches = vessels.grow(np.array(roots), np.array(headings), targets, rng)
    tip = 0.45 * subject.vessel_scale
    radius = vessels.radii(branches, tip)
    blood = vessels.sample(branches, radius)
    # A bronchus runs beside each artery.
    paired = (branches.tree % 2 == 0) & (radius > 1.9)
    airways = vessels.Branches(*(getattr(branches, f.name)[paired] for f in dataclasses.fields(branches)))
    own_radius = radius[paired]
    beside = np.array([0.35, 0.75, 0.0]) + 0 * airways.start
    across = np.cross(airways.heading, beside)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 0.1)
    sideways = (np.array([0.0, 1.0, 0.0]) * np.sign(across[:, 1:2] + 1e-6) + across) * 0.7 * (own_radius * 2.0)[:, None]
    airways = dataclasses.replace(airways, start=airways.start + sideways, end=airways.end + sideways)
    lumen = vessels.sample(airways, own_radius * 0.62)
    tubes = (lumen, _trunk(organs, subject))
    lumen = vessels.Tubes(*(np.concatenate([getattr(t, f.name) for t in tubes]) for f in dataclasses.fields(lumen)))
    thick = 0.45 + 0.1 * lumen.radius
    return Trees(blood, dataclasses.replace(lumen, radius=(lumen.radius + thick).astype(np.float32)), lumen)


def _trunk(organs: Organs, s: Subject) -> vessels.Tubes:
    """Return trachea and main bronchi."""
    wide = 7.2 if s.female else 8.8
    lines = [(organs.trachea_top, organs.carina, wide, wide)]
    for side, r in (("right", 6.6), ("left", 5.6)):
        start = organs.carina + np.array([2, 0, 0], np.float32)
        lines.append((start, organs.hilum[side] + (2, -2, 0), r, 0.8 * r))
    position, radius = [], []
    for a, b, ra, rb in lines:
        t = np.linspace(0, 1, max(int(np.linalg.norm(b - a) / 1.0), 2), dtype=np.float32)[:, None]
        position.append(a + (b - a) * t)
        radius.append(ra + (rb - ra) * t[:, 0])
    radii = np.concatenate(radius).astype(np.float32)
    return vessels.Tubes(np.concatenate(position).astype(np.float32), radii, np.full(len(radii), 0.2, np.float32))


def render(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw all slices.

    Returns:
      HU int16, lesion mask bool, lung mask bool, each (slice, row, column).
    """
    scan, s = scene.scan, scene.subject
    shape = (scan.slices, scan.matrix, scan.matrix)
    hu = np.empty(shape, np.int16)
    lesion_mask, lung_mask = np.zeros(shape, bool), np.zeros(shape, bool)
    z, y, x = scan.axes()
    textures = {
        "lung": (
            s.parenchyma_hu
            + s.dependent_hu * (y - scene.wall.middle_y[:, None, None]) / (2 * s.half_depth)
            + s.mottle_hu * value_noise(rng, scan, 30)
            + 0.7 * s.mottle_hu * value_noise(rng, scan, 8)
            + s.fine_hu * np.square(np.maximum(value_noise(rng, scan, 4.5), 0))
        ).astype(np.float32),
        "muscle": value_noise(rng, scan, 9),
        "net": value_noise(rng, scan, rng.uniform(5, 8)),
        "fissure": fissure(s, z, y, x) + 3 * value_noise(rng, scan, 45),
    }
    table = background(scan, rng, scene.wall.back_of_body)
    noise = Noise(scan, rng)
    radius2 = (scan.x - scan.centre_x)[None, :] ** 2 + (scan.y - scan.centre_y)[:, None] ** 2
    outside = radius2 > (scan.circle * 0.5 * scan.matrix * scan.pixel) ** 2
    level = scan.noise * (0.6 + 0.4 * (s.half_width + s.fat) / 150) / np.sqrt(0.5 + 0.5 * min(scan.slab, 3.0))
    for k in range(scan.slices):
        image = table.copy()
        _draw_body(scene, k, image, textures)
        _draw_lungs(scene, k, image, textures, lesion_mask[k], lung_mask[k])
        u = scan.z[k] / s.lung_height
        streak = 1.3 * np.clip((u - 0.85) / 0.2, 0, 1)
        grain = noise.draw(float(streak))
        grain *= np.float32(level)
        image += grain
        np.clip(image, -1024, 3071, out=image)
        np.rint(image, out=image)
        image[outside] = scan.padding
        hu[k] = image
    return hu, lesion_mask, lung_mask


def _blend(image: np.ndarray, cover: np.ndarray, value) -> None:
    """Blend a tissue into the image, in place, by its cover in [0, 1]."""
    step = value - image
    step *= cover
    image += step


def _cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Return the share of each pixel inside an edge that is `width` mm soft."""
    out = distance * np.float32(-1 / width)
    out += np.float32(0.5)
    return np.clip(out, 0, 1, out=out)


def _box(field: np.ndarray, scan: Acquisition, margin: float) -> tuple[slice, slice]:
    """Return the window of pixels around the negative part of a coarse slice."""
    rows, columns = np.flatnonzero((field < margin).any(1)), np.flatnonzero((field < margin).any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    y, x = scan.coarse_y, scan.coarse_x
    edges = y[rows[0]] - 3, y[rows[-1]] + 3, x[columns[0]] - 3, x[columns[-1]] + 3
    return scan.window(*map(float, edges))


def _draw_body(scene: Scene, k: int, image: np.ndarray, textures: dict[str, np.ndarray]) -> None:
    """Draw everything but the lungs into one slice."""
    scan, s, wall, organs = scene.scan, scene.subject, scene.wall, scene.organs
    w = scan.resolution
    box = _box(wall.skin[k], scan, 3)
    if box[0].stop == box[0].start:
        return
    part = image[box]
    skin = scan.refine(wall.skin[k], *box)
    body = np.full(part.shape, s.fat_hu, np.float32)
    _blend(body, np.clip(1.6 - np.abs(skin + 1.2) / 1.2, 0, 1), 20)
    texture = scan.refine(textures["muscle"][k], *box)
    muscle = scan.refine(wall.muscle[k], *box)
    lean = _cover(muscle, w)
    # Fat between the muscles, most of it in the shoulders and in obese subjects.
    lean *= np.clip(1.35 - np.maximum(texture, 0) * (0.35 + 0.5 * s.visceral_fat) * np.clip(-muscle / 20, 0.2, 1), 0, 1)
    cage = scan.refine(wall.cage[k], *box)
    lean *= 1 - np.float32(0.8) * np.clip(1 - np.abs(cage - 14) / 3, 0, 1) * np.clip(0.6 + 0.3 * texture, 0, 1)
    _blend(body, lean, s.muscle_hu)
    # Towards the neck, muscle takes the place of fat.
    neck = float(np.clip((scan.z[k] / s.lung_height - 0.85) / 0.12, 0, 1)) * np.clip(0.9 + 0.4 * texture, 0, 1)
    _blend(body, _cover(cage - 1.5, w), s.fat_hu + (s.muscle_hu - s.fat_hu) * neck)
    _blend(body, _cover(scan.refine(organs.core[k], *box), w), s.blood_hu)
    if scan.z[k] < max(s.dome_left, s.dome_right) + 10:
        dome = scan.refine(organs.diaphragm[k], *box)
        below = _cover(dome, w) * _cover(cage, w)
        organ = scan.refine(organs.organ[k], *box)
        inner = np.full(part.shape, s.fat_hu, np.float32)
        _blend(inner, _cover(organ, 2), scan.refine(organs.organ_hu[k], *box))
        _blend(inner, np.clip(1.5 - np.abs(dome + 1.5), 0, 1), s.muscle_hu)
        _blend(inner, _cover(scan.refine(organs.gas[k], *box), 2), -960)
        _blend(body, below, inner)
    bone = scan.refine(wall.bone[k], *box)
    rib = _ribs(scene, k, cage, scan.refine(wall.rib_height[k], *box), scan.refine(wall.front[k], *box))
    np.minimum(bone, rib, out=bone)
    depth = np.maximum(-bone, 0)
    marrow = s.bone_hu + (CORTEX_HU - s.bone_hu) * np.exp(depth * np.float32(-1.1))
    _blend(body, _cover(bone, w), marrow + 20 * texture)
    _blend(body, _cover(scan.refine(wall.canal[k], *box) + 1, w), 25)
    _blend(part, _cover(skin, w), body)


def _ribs(scene: Scene, k: int, cage: np.ndarray, height: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Return the signed distance to the ribs that cross a slice."""
    s = scene.subject
    nearest = np.rint(height)
    across = (height - nearest) * np.float32(0.85 * s.rib_pitch / 6.0)
    through = (cage - 6.0) * np.float32(1 / 3.6)
    rib = np.sqrt(across * across + through * through)
    rib -= 1
    rib *= np.float32(3.6)
    rib += np.float32(40) * (front > 0.80)
    if scene.scan.z[k] > s.lung_height:
        rib += np.float32(0.5) * (scene.scan.z[k] - s.lung_height)
    return rib


def _draw_lungs(scene: Scene, k: int, image, textures, lesion_mask, lung_mask) -> None:
    """Draw parenchyma, opacities, vessels and airways into one slice, and fill its masks."""
    scan, s, organs = scene.scan, scene.subject, scene.organs
    w = scan.resolution
    box = _box(organs.lungs[k], scan, 3)
    if box[0].stop > box[0].start:
        part = image[box]
        edge = np.maximum(scan.refine(scene.wall.cage[k], *box), -scan.refine(organs.diaphragm[k], *box))
        middle = -scan.refine(organs.mediastinum[k], *box)
        lung = scan.refine(textures["lung"][k], *box)
        lung += np.clip(1.3 - np.abs(scan.refine(textures["fissure"][k], *box)), 0, 1) * np.float32(s.fissure_hu)
        diseased = np.zeros(part.shape, bool)
        for opacity in scene.opacities:
            if opacity.distance[k].min() > 0.5 * opacity.width:
                continue
            distance = scan.refine(opacity.distance[k], *box)
            cover = _cover(distance, opacity.width)
            hu = scan.refine(opacity.hu[k], *box) if isinstance(opacity.hu, np.ndarray) else opacity.hu
            if opacity.weave:
                net = scan.refine(textures["net"][k], *box)
                lines = np.clip(1 - np.abs(net) * 5, 0, 1)
                hu = hu + lines * np.float32(250 * opacity.weave)
            _blend(lung, cover, hu)
            if opacity.lesion:
                diseased |= distance < 0
            if opacity.outside_lung:
                np.maximum(edge, -distance, out=edge)
        beating = s.dome_left - 30 < scan.z[k] < s.carina_z - 25
        inside = _cover(edge, w) * _cover(middle, float(np.hypot(w, scan.heartbeat if beating else 0)))
        np.maximum(edge, middle, out=edge)
        _blend(part, inside, lung)
        lung_mask[box] = edge < 0
        lesion_mask[box] = diseased & (edge < 0)
    _draw_trees(scene, k, image)
    breath = float(np.sin(1.7 * k + s.rib_phase))
    if scene.motion and breath > 0 and scan.z[k] < 0.65 * s.lung_height:
        _double(image[box], round(5 * breath / scan.pixel))


def _double(image: np.ndarray, shift: int) -> None:
    """Show structures twice, some rows apart, as breathing during a rotation of the tube does."""
    if 0 < shift < len(image):
        image[shift:] = 0.62 * image[shift:] + 0.38 * image[:-shift]


def _draw_trees(scene: Scene, k: int, image: np.ndarray) -> None:
    scan = scene.scan
    rows, columns = _box(np.minimum(scene.organs.lungs[k], scene.organs.core[k]), scan, 3)
    if rows.stop == rows.start:
        return
    part = image[rows, columns]
    where = (
        float(scan.z[k]),
        scan.slab,
        scan.resolution,
        float(scan.x[columns][0]),
        float(scan.y[rows][0]),
        scan.pixel,
    )
    for tubes, hu in (
        (scene.trees.blood, scene.subject.blood_hu),
        (scene.trees.wall, 0.0),
        (scene.trees.lumen, -960.0),
    ):
        _blend(part, vessels.draw(tubes, *where, part.shape), np.float32(hu))
