"""Drawing of the body without the lungs into a plane: skin, fat, muscles, bones, mediastinum, abdomen."""

import numpy as np

from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.painting import blend, box_around, cover_of, window_within
from tfds_mosmed.ct_phantom.scene import Image, Scene

CORTEX_HU, CARTILAGE_HU = 850.0, 90.0
RIB_MM, RIB_HALF_MM = 6.0, 3.6  # of the ribs' middle beyond the lungs, and half of their thickness
LAYER_MM = 14.0  # of muscle, between two planes of fat


def draw_body(scene: Scene, k: int, image: Image, textures: dict[str, np.ndarray]) -> None:
    """Draw everything but the lungs into one plane."""
    scan, s, wall, organs = scene.scan, scene.subject, scene.wall, scene.organs
    w = scan.resolution
    box = box_around(wall.skin[k], scan, 3)
    if box[0].stop == box[0].start:
        return
    part = image.hu[box]
    skin = scan.refine(wall.skin[k], *box)
    body = np.full(part.shape, s.fat_hu, np.float32)
    blend(body, np.clip(1.6 - np.abs(skin + 1.2) / 1.2, 0, 1), 20)
    texture = scan.refine(textures["muscle"][k], *box)
    muscle = scan.refine(wall.muscle[k], *box)
    lean = cover_of(muscle, w)
    # Fat between the muscles, most of it in the shoulders and in obese subjects.
    cage = scan.refine(wall.cage[k], *box)
    if s.layered:
        lean *= _between_layers(s, cage, texture)
    else:
        marbled = np.maximum(texture, 0) * (0.35 + 0.5 * s.visceral_fat) * np.clip(-muscle / 20, 0.2, 1)
        lean *= np.clip(1.35 - marbled, 0, 1)
        lean *= 1 - np.float32(0.8) * np.clip(1 - np.abs(cage - 14) / 3, 0, 1) * np.clip(0.6 + 0.3 * texture, 0, 1)
    blend(body, lean, s.muscle_hu)
    # Towards the neck, muscle takes the place of fat.
    neck = float(np.clip((scan.z[k] / s.lung_height - 0.85) / 0.12, 0, 1))
    muscular = (s.muscle_hu - s.fat_hu) * (neck * np.clip(0.9 + 0.4 * texture, 0, 1)) if neck else 0
    blend(body, cover_of(cage - 1.5, w), s.fat_hu + muscular)
    window, part_of = window_within(organs.core[k], scan, box, w)
    blood = s.blood_hu if organs.core_hu is None else scan.refine(organs.core_hu[k], *window)
    blend(body[part_of], cover_of(scan.refine(organs.core[k], *window), w), blood)
    if scene.nodes is not None:
        window, part_of = window_within(scene.nodes[k], scan, box, w)
        node = scan.refine(scene.nodes[k], *window)
        blend(body[part_of], cover_of(node, w), s.muscle_hu)
        image.finding[window][node < 0] = scene.number("lymph_nodes")
    if scan.z[k] < max(s.dome_left, s.dome_right) + 10:
        _draw_abdomen(scene, k, box, body, cage)
    _draw_bones(scene, k, box, body, cage, texture)
    window, part_of = window_within(wall.canal[k], scan, box, w)
    blend(body[part_of], cover_of(scan.refine(wall.canal[k], *window) + 1, w), 25)
    blend(part, cover_of(skin, w), body)


def _between_layers(s: Subject, cage: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Return the share of muscle that the fat between its layers leaves, which run round the chest."""
    height = cage - np.float32(12)
    height *= np.float32(1 / LAYER_MM)
    height += np.float32(0.4) * texture
    lines = np.abs(height - np.rint(height))  # 0 between two layers, 0.5 within one
    lines *= np.float32(-LAYER_MM)
    lines += np.clip(texture + np.float32(0.6 + s.visceral_fat), 0, 1.6)
    return 1 - np.float32(s.septa) * np.clip(lines, 0, 1)


def _draw_abdomen(scene: Scene, k: int, box, body: np.ndarray, cage: np.ndarray) -> None:
    """Draw what lies under the diaphragm."""
    scan, s, organs, w = scene.scan, scene.subject, scene.organs, scene.scan.resolution
    window, part_of = window_within(organs.diaphragm[k], scan, box, w)
    dome = scan.refine(organs.diaphragm[k], *window)
    below = cover_of(dome, w) * cover_of(cage[part_of], w)
    inner = np.full(dome.shape, s.fat_hu, np.float32)
    blend(inner, cover_of(scan.refine(organs.organ[k], *window), 2), scan.refine(organs.organ_hu[k], *window))
    blend(inner, np.clip(1.5 - np.abs(dome + 1.5), 0, 1), s.muscle_hu)
    blend(inner, cover_of(scan.refine(organs.gas[k], *window), 2), -960)
    blend(body[part_of], below, inner)


def _draw_bones(scene: Scene, k: int, box, body: np.ndarray, cage: np.ndarray, texture: np.ndarray) -> None:
    """Draw bones and the cartilages of the ribs, at the few pixels where there are any."""
    scan, s, wall, w = scene.scan, scene.subject, scene.wall, scene.scan.resolution
    bone = scan.refine(wall.bone[k], *box).ravel()
    at = np.flatnonzero(np.abs(cage.ravel() - np.float32(RIB_MM)) < RIB_HALF_MM + w)
    front = scan.refine_at(wall.front[k], at, *box)
    rib = _ribs(scene, k, cage.ravel()[at], scan.refine_at(wall.rib_height[k], at, *box))
    gristle = front > 0.80
    if s.layered:
        soft, cover = at[gristle], cover_of(rib[gristle], w)
        body.reshape(-1)[soft] += (np.float32(CARTILAGE_HU) - body.reshape(-1)[soft]) * cover
    bone[at] = np.minimum(bone[at], rib + np.float32(40) * gristle)
    at = np.flatnonzero(bone < 0.5 * w)
    depth = np.maximum(-bone[at], 0)
    marrow = s.bone_hu + (CORTEX_HU - s.bone_hu) * np.exp(depth * np.float32(-1.1)) + 20 * texture.ravel()[at]
    body.reshape(-1)[at] += (marrow - body.reshape(-1)[at]) * cover_of(bone[at], w)


def _ribs(scene: Scene, k: int, cage: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the signed distance to the ribs that cross a slice."""
    s = scene.subject
    nearest = np.rint(height)
    across = (height - nearest) * np.float32(0.85 * s.rib_pitch / 6.0)
    through = (cage - RIB_MM) * np.float32(1 / RIB_HALF_MM)
    rib = np.sqrt(across * across + through * through)
    rib -= 1
    rib *= np.float32(RIB_HALF_MM)
    if scene.scan.z[k] > s.lung_height:
        rib += np.float32(0.5) * (scene.scan.z[k] - s.lung_height)
    return rib
