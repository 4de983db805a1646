"""Drawing of the lungs into a plane: parenchyma, opacities, foci, vessels, airways."""

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy import vessels
from tfds_mosmed.ct_phantom.disease.opacities import Opacity
from tfds_mosmed.ct_phantom.painting import blend, box_around, cover_of, window_within
from tfds_mosmed.ct_phantom.scene import Image, Scene

# Of a vessel of 2 mm, a slice of 2 mm and a soft kernel show two thirds.
THIN_CONTRAST = 0.85


def draw_lungs(scene: Scene, k: int, image: Image, textures) -> None:
    """Draw parenchyma, opacities, vessels and airways into one plane, and fill its masks."""
    scan, s, organs = scene.scan, scene.subject, scene.organs
    w = scan.resolution
    box = box_around(organs.lungs[k], scan, 3)
    if box[0].stop > box[0].start:
        part = image.hu[box]
        chest = np.maximum(scan.refine(scene.wall.cage[k], *box), -scan.refine(organs.diaphragm[k], *box))
        middle = -scan.refine(organs.mediastinum[k], *box)
        lung = scan.refine(textures["lung"][k], *box)
        # A thick slice shows an oblique fissure as a broad, faint band.
        half = 1.3 + 0.4 * scan.slab if s.layered else 1.3
        near = np.clip(half - np.abs(scan.refine(textures["fissure"][k], *box)), 0, 1)
        lung += near * np.float32(s.fissure_hu * 1.3 / half)
        diseased, finding = np.zeros(part.shape, bool), np.zeros(part.shape, np.uint8)
        edge, fills = chest.copy(), []
        for opacity in scene.opacities:
            if opacity.distance[k].min() > 0.5 * opacity.width:
                continue
            window, part_of = window_within(opacity.distance[k], scan, box, max(opacity.width, w))
            distance = scan.refine(opacity.distance[k], *window)
            net = scan.refine(textures["net"][k], *window) if opacity.has_net else None
            if net is not None:
                distance += np.float32(0.15 * opacity.width * (opacity.mottle_hu > 0)) * net
            _draw_opacity(scan, k, window, opacity, distance, lung[part_of], net)
            if opacity.lesion:
                diseased[part_of] |= distance < 0
            if opacity.outside_lung or opacity.fills:
                edge[part_of] = np.maximum(edge[part_of], -distance)
            if opacity.fills:
                fills.append((distance, window, part_of, opacity))
            elif opacity.name:
                finding[part_of][distance < 0] = scene.number(opacity.name)
        for focus in scene.foci:
            focus.draw(scan, k, box, lung, diseased, finding, scene.number(focus.name), textures["net"][k])
        beating = s.dome_left - 30 < scan.z[k] < s.carina_z - 25
        soft = float(np.hypot(w, scan.heartbeat if beating else 0))
        inside = cover_of(edge, w) * cover_of(middle, soft)
        edge = np.maximum(edge, middle)
        blend(part, inside, lung)
        image.lung_mask[box] = edge < 0
        image.lesion_mask[box] = diseased & (edge < 0)
        np.copyto(image.finding[box], finding, where=(edge < 0) & (finding > 0))
        for distance, window, part_of, opacity in fills:
            space = np.maximum(np.maximum(distance, chest[part_of]), middle[part_of])
            blend(part[part_of], cover_of(space, w), opacity.hu)
            image.finding[window][space < 0] = scene.number(opacity.name)
    _draw_trees(scene, k, image)
    breath = float(np.sin(1.7 * k + s.rib_phase))
    if scene.motion and breath > 0 and scan.z[k] < 0.65 * s.lung_height:
        _double(image.hu[box], round(5 * breath / scan.pixel))


def _draw_opacity(scan: Acquisition, k: int, box, opacity: Opacity, distance, lung: np.ndarray, net) -> None:
    """Blend an opacity into the lung; `net` is the field of its inner structure."""
    hu = scan.refine(opacity.hu[k], *box) if isinstance(opacity.hu, np.ndarray) else opacity.hu
    if opacity.weave or opacity.cysts:
        lines = np.abs(net)
        if opacity.cysts:
            hu = hu - np.clip(2.5 * (lines - opacity.cysts), 0, 1) * (hu + np.float32(960))
        lines *= -5
        lines += 1
        hu = hu + np.clip(lines, 0, 1) * np.float32(250 * opacity.weave)
    if opacity.mottle_hu:
        hu = hu + np.float32(opacity.mottle_hu) * net
    if opacity.denser is not None:
        hu = np.maximum(lung + np.float32(opacity.denser), hu)
    blend(lung, cover_of(distance, opacity.width), hu)


def _double(image: np.ndarray, shift: int) -> None:
    """Show structures twice, some rows apart, as breathing during a rotation of the tube does."""
    if 0 < shift < len(image):
        image[shift:] = 0.62 * image[shift:] + 0.38 * image[:-shift]


def _draw_trees(scene: Scene, k: int, image: Image) -> None:
    scan = scene.scan
    rows, columns = box_around(np.minimum(scene.organs.lungs[k], scene.organs.core[k]), scan, 3)
    if rows.stop == rows.start:
        return
    part = image.hu[rows, columns]
    where = (
        float(scan.z[k]),
        scan.slab,
        scan.resolution,
        float(scan.x[columns][0]),
        float(scan.y[rows][0]),
        scan.pixel,
    )
    for tubes, hu in (
        (scene.trees.blood, scene.subject.vessel_hu),
        (scene.trees.wall, 0.0),
        (scene.trees.lumen, -960.0),
    ):
        cover = vessels.draw(tubes, *where, part.shape, THIN_CONTRAST if scene.subject.layered else 1.3)
        blend(part, cover, np.float32(hu))
        if tubes is scene.trees.wall and "bronchiectasis" in scene.findings:
            near = _near_bronchi(scene, k, rows, columns) & (cover > 0.5)
            image.finding[rows, columns][near] = scene.number("bronchiectasis")


def _near_bronchi(scene: Scene, k: int, rows: slice, columns: slice) -> np.ndarray:
    """Return the pixels of a window in whose surroundings the bronchi are widened."""
    scan = scene.scan
    near = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
    for region in scene.bronchi:
        z, y, x = region.centre
        far = (scan.y[rows, None] - y) ** 2 + (scan.x[None, columns] - x) ** 2 + (scan.z[k] - z) ** 2
        near |= far < region.reach**2
    return near
