"""Rendering of a scene into the slices of a scan."""

import dataclasses
import functools

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Noise
from tfds_mosmed.ct_phantom.anatomy.fields import fissure, value_noise
from tfds_mosmed.ct_phantom.couch import Metal, Surroundings
from tfds_mosmed.ct_phantom.draw_body import draw_body
from tfds_mosmed.ct_phantom.draw_lungs import draw_lungs
from tfds_mosmed.ct_phantom.scene import Image, Scene

HAZE_MOTTLE = 0.3  # standard deviation of haze: lobules lose their air unequally


def render(scene: Scene, rng: np.random.Generator) -> Image:
    """Draw all slices.

    Returns:
      HU int16, lesion mask bool, lung mask bool, findings uint8, each (slice, row, column).
    """
    scan, s = scene.scan, scene.subject
    shape = (scan.slices, scan.matrix, scan.matrix)
    result = Image(np.empty(shape, np.int16), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.uint8))
    textures = _textures(scene, rng)
    surroundings = Surroundings(scene.scanner, scan, scene.wall, s, rng)
    noise = Noise(scan, rng)
    metal = Metal(scene.scanner, scan, scene.wall, s, rng)
    radius2 = (scan.x - scan.centre_x)[None, :] ** 2 + (scan.y - scan.centre_y)[:, None] ** 2
    outside = radius2 > (scan.circle * 0.5 * scan.matrix * scan.pixel) ** 2
    slab = min(scan.slab * scan.layers, 3.0)
    level = scan.noise * (0.6 + 0.4 * (s.half_width + s.fat) / 150) / np.sqrt(0.5 + 0.5 * slab)

    @functools.lru_cache(maxsize=2)
    def draw(plane: int) -> Image:
        image = Image(surroundings.at(plane), *(np.zeros(shape[1:], kind) for kind in (bool, bool, np.uint8)))
        draw_body(scene, plane, image, textures)
        draw_lungs(scene, plane, image, textures)
        metal.draw(plane, image.hu)
        return image

    for k in range(scan.slices):
        mixed = _mix([(draw(plane), weight) for plane, weight in scan.planes_of(k)])
        result.lesion_mask[k], result.lung_mask[k], result.finding[k] = (
            mixed.lesion_mask,
            mixed.lung_mask,
            mixed.finding,
        )
        image = mixed.hu
        if scan.overshoot:
            _sharpen(image, scan.overshoot)
        u = np.float32(scan.first_z + k * scan.gap) / s.lung_height
        streak = max(1.3 * np.clip((u - 0.85) / 0.2, 0, 1), scan.arms_streaks)
        grain = noise.draw(float(streak))
        grain *= np.float32(level)
        image += grain
        np.clip(image, -1024, 3071, out=image)
        np.rint(image, out=image)
        image[outside] = scan.padding
        result.hu[k] = image
    return result


def _mix(planes: list[tuple[Image, float]]) -> Image:
    """Return the mean of planes; masks are those of the plane of the greatest weight, or the union of two equals."""
    first, weight = max(planes, key=lambda plane: plane[1])
    if len(planes) == 1:
        return dataclasses.replace(first, hu=first.hu.copy())  # the next slices may need the plane, too
    hu = planes[0][0].hu * np.float32(planes[0][1])
    hu += planes[1][0].hu * np.float32(planes[1][1])
    mixed = dataclasses.replace(first, hu=hu)
    if weight == planes[-1][1] == planes[0][1]:
        other = planes[-1][0]
        mixed.lesion_mask, mixed.lung_mask = first.lesion_mask | other.lesion_mask, first.lung_mask | other.lung_mask
        mixed.finding = np.maximum(first.finding, other.finding)
    return mixed


def _sharpen(image: np.ndarray, overshoot: float) -> None:
    """Add the overshoot at edges that sharp kernels have: the difference from the mean of 3 x 3 pixels, in place."""
    rows = image[:-2] + image[1:-1]
    rows += image[2:]
    mean = rows[:, :-2] + rows[:, 1:-1]
    mean += rows[:, 2:]
    mean *= np.float32(-overshoot / 9)
    image[1:-1, 1:-1] *= np.float32(1 + overshoot)
    image[1:-1, 1:-1] += mean


def _haze(scene: Scene, y: np.ndarray) -> np.ndarray:
    """Compute the increase of density by gravity, HU: from the surface behind and less so from the diaphragm.

    A share of it, and a crescent, lie by their height above the lowest places of the lungs in a slice, which are the
    gutters beside the spine.
    """
    s, wall = scene.subject, scene.wall
    bottom = np.where(wall.cage < 0, y, -np.inf).max(axis=(1, 2), keepdims=True)  # rows grow to the back
    height = np.maximum(bottom - y, 0).astype(np.float32)
    surface = np.clip(-wall.front, 0, 1) * np.exp(np.minimum(wall.cage, 0) / np.float32(s.haze_mm))
    share = np.float32(s.haze_by_height)
    behind = (1 - share) * surface + share * np.exp(-height / np.float32(s.haze_mm))
    above = np.exp(-np.clip(scene.organs.diaphragm, 0, None) / np.float32(0.3 * s.haze_mm))
    crescent = np.float32(s.crescent_hu) * np.exp(-height / np.float32(s.crescent_mm))
    return np.float32(s.haze_hu) * np.maximum(behind, 0.4 * above) + crescent


def _textures(scene: Scene, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the densities of the lungs and the patterns of tissues, (plane, row, column) on the coarse grid."""
    scan, s = scene.scan, scene.subject
    z, y, x = scan.axes()
    broad, fine = value_noise(rng, scan, 30), value_noise(rng, scan, 8)
    lung = (
        s.parenchyma_hu
        + s.dependent_hu * (y - scene.wall.middle_y[:, None, None]) / (2 * s.half_depth)
        + s.mottle_hu * broad
        + 0.7 * s.mottle_hu * fine
        + s.fine_hu * np.square(np.maximum(value_noise(rng, scan, 4.5), 0))
    ).astype(np.float32)
    if s.haze_hu:
        lung += _haze(scene, y) * (1 + np.float32(HAZE_MOTTLE) * (fine + np.float32(0.7) * broad))
    muscle, size = value_noise(rng, scan, 9), rng.uniform(5, 8)
    net = value_noise(rng, scan, size)
    if s.layered:  # the sum of two lattices does not show their cells
        net = np.float32(0.5**0.5) * (net + value_noise(rng, scan, 0.71 * size))
    return {
        "lung": lung,
        "muscle": muscle,
        "net": net,
        "fissure": fissure(s, z, y, x) + 3 * value_noise(rng, scan, 45),
    }
