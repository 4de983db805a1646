"""Pneumonias other than COVID-19.

After Franquet (Journal of Thoracic Imaging 2018, imaging of community-acquired pneumonia) and Rossi et al.
(RadioGraphics 2005, tree-in-bud pattern at thin-section CT).
"""

import numpy as np

from tfds_mosmed.ct_phantom.anatomy.fields import ellipsoid, fissure
from tfds_mosmed.ct_phantom.disease.opacities import DENSER_HU, Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site


def lobar_pneumonia(p: Site) -> list[Opacity | Focus]:
    """Return homogeneous consolidation that a fissure bounds, and haze around it."""
    rng = p.rng
    side = rng.choice([-1, 1])
    border = fissure(p.subject, p.z, p.y, p.x)
    lobe = np.where(p.x * side > 0, border * rng.choice([1, -1], p=[0.6, 0.4]), 40)
    centres = p.points(1, (p.lungs < -5) & (lobe < -12))
    if not centres:
        return []
    extent = ellipsoid(p.z, p.y, p.x, centres[0], rng.uniform(30, 95, 3)) + 7 * p.noise(18)
    haze = np.maximum(lobe, extent - rng.uniform(0, 12)).astype(np.float32)
    dense = np.maximum(lobe, extent + rng.uniform(2, 22) + 5 * p.noise(12)).astype(np.float32)
    return [
        Opacity(haze, rng.uniform(3, 8), rng.uniform(-650, -350), denser=DENSER_HU),
        Opacity(dense, rng.uniform(3, 7), rng.uniform(-60, 50)),
    ]


def bronchopneumonia(p: Site) -> list[Opacity | Focus]:
    """Return patchy, ill-defined consolidations along the bronchi of one or both lungs, some of them confluent."""
    rng = p.rng
    weight = np.exp(1.5 * p.basal() + 0.8 * p.posterior()) * np.clip(-p.lungs / 12, 0.1, 1)
    if rng.random() < 0.55:
        weight = weight * p.one_lung()
    result: list[Opacity | Focus] = []
    for centre in p.likely_points(int(rng.integers(4, 18)), weight):
        size = float(np.clip(rng.lognormal(2.2, 0.5), 4, 26))
        radii = tuple(float(r) for r in size * rng.uniform(0.7, 1.5, 3))
        outline = {"ragged": rng.uniform(0.15, 0.45), "lobes": int(rng.integers(2, 6)), "phase": rng.uniform(0, 6)}
        result.append(_haze(centre, radii, rng.uniform(-680, -420), rng.uniform(3, 9), outline))
        if rng.random() < 0.75:
            core = tuple(r * rng.uniform(0.4, 0.85) for r in radii)
            result.append(Focus(centre, core, rng.uniform(-250, 45), rng.uniform(2, 5), **outline))
    return result + tree_in_bud(p, clusters=int(rng.integers(0, 4)))


def tree_in_bud(p: Site, clusters: int | None = None) -> list[Opacity | Focus]:
    """Return clusters of small, branching nodules at the ends of bronchioles, 3 to 5 mm from the pleura."""
    rng = p.rng
    if clusters is None:
        clusters = int(rng.integers(2, 9))
    weight = np.exp(rng.uniform(-1, 2) * p.basal()) * (p.wall.cage < -4)
    result: list[Opacity | Focus] = []
    for centre in p.likely_points(clusters, weight):
        spread = rng.uniform(5, 16)
        for _ in range(rng.integers(8, 26)):
            start = np.array(centre) + rng.normal(0, spread, 3)
            radius = rng.uniform(0.9, 2.3)
            for k in range(rng.integers(1, 4)):  # buds on a twig
                bud = start + k * rng.normal(0, 2.2, 3)
                result.append(Focus(tuple(map(float, bud)), (radius,) * 3, rng.uniform(-350, 40), 1.2))
    return result


def aspiration(p: Site) -> list[Opacity | Focus]:
    """Return consolidation and haze in the dependent segments, more often on the right, with buds in front of it."""
    rng = p.rng
    level = rng.uniform(0.15, 0.5)
    depth = p.posterior() - level + 0.12 * p.noise(22) - 0.5 * (p.basal() - rng.uniform(0.5, 0.7)) ** 2
    right_only = rng.choice([0, 1, -1], p=[0.4, 0.45, 0.15])
    distance = -25 * depth + 60 * (p.x * right_only > 0) + 6 * p.noise(11)
    top = np.maximum(p.z - rng.uniform(0.45, 0.75) * p.subject.lung_height, 0)
    haze = (distance + 0.8 * top).astype(np.float32)
    dense = (haze + rng.uniform(3, 14) + 4 * p.noise(9)).astype(np.float32)
    return [
        Opacity(haze, rng.uniform(4, 12), rng.uniform(-650, -400), denser=DENSER_HU),
        Opacity(dense, rng.uniform(3, 8), rng.uniform(-150, 40)),
        *tree_in_bud(p, clusters=int(rng.integers(1, 4))),
    ]


def _haze(centre, radii, hu: float, width: float, outline: dict) -> Focus:
    return Focus(centre, radii, hu, width, denser=DENSER_HU, **outline)
