"""Tumours: primary ones, metastases, enlarged lymph nodes, and consolidation behind an obstructed bronchus.

Sizes and margins after Armato et al. (Medical Physics 2011, LIDC-IDRI), Aerts et al. (Nature Communications 2014,
NSCLC-Radiomics), and the TNM classification's sizes (Goldstraw et al., Journal of Thoracic Oncology 2016).
"""

import numpy as np

from tfds_mosmed.ct_phantom.anatomy.fields import ellipsoid, fissure, smooth_union
from tfds_mosmed.ct_phantom.anatomy.organs import Organs
from tfds_mosmed.ct_phantom.disease.opacities import DENSER_HU, Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site


def primary_tumour(p: Site) -> list[Opacity | Focus]:
    """Return a lobulated or spiculated mass of 8 to 80 mm, sometimes with a cavity, a halo or strands to the pleura."""
    rng = p.rng
    size = float(np.clip(rng.lognormal(2.6, 0.55), 4, 40))
    centres = p.points(1, p.lungs < -min(0.4 * size, 8))
    if not centres:
        return []
    radii = tuple(float(r) for r in size * rng.uniform(0.85, 1.2, 3))
    outline = {"ragged": rng.uniform(0.05, 0.3), "lobes": int(rng.integers(3, 9)), "phase": rng.uniform(0, 6)}
    hu = _enhanced(p, rng.uniform(15, 50))
    result: list[Opacity | Focus] = []
    if rng.random() < 0.2:  # part-solid, or bleeding around it
        halo = tuple(r * rng.uniform(1.2, 1.7) for r in radii)
        result.append(Focus(centres[0], halo, rng.uniform(-680, -480), 3.0, denser=DENSER_HU, **outline))
    if size > 12 and rng.random() < 0.15:
        mass = Focus(centres[0], radii, -950.0, 2.0, rim=size * rng.uniform(0.2, 0.5), rim_hu=hu, **outline)
    else:
        mass = Focus(centres[0], radii, hu, 2.0, **outline)
    for _ in range(rng.integers(0, 4)):
        result.append(_strand(p, centres[0], size))
    return [*result, mass]


def _strand(p: Site, centre, size: float) -> Opacity:
    """Return a sheet from a mass to its surroundings."""
    normal = p.rng.normal(0, 1, 3)
    normal /= np.linalg.norm(normal)
    plane = (p.z - centre[0]) * normal[0] + (p.y - centre[1]) * normal[1] + (p.x - centre[2]) * normal[2]
    extent = ellipsoid(p.z, p.y, p.x, centre, np.full(3, size + p.rng.uniform(8, 25)))
    sheet = np.abs(plane + 1.5 * p.noise(18)) - p.rng.uniform(0.3, 1.0)
    return Opacity(np.maximum(sheet, extent).astype(np.float32), 2.0, p.rng.uniform(-500, -150))


def nodules(p: Site) -> list[Opacity | Focus]:
    """Return one to seven small nodules of 3 to 12 mm: solid, calcified or of ground glass."""
    rng = p.rng
    result: list[Opacity | Focus] = []
    for centre in p.likely_points(int(rng.integers(1, 8)), np.ones_like(p.lungs)):
        radius = float(np.clip(rng.lognormal(0.7, 0.4), 1.5, 6))
        hu = float(
            rng.choice([rng.uniform(-50, 60), rng.uniform(200, 800), rng.uniform(-700, -500)], p=[0.7, 0.2, 0.1])
        )
        haze = DENSER_HU if hu < -300 else None
        result.append(Focus(centre, (radius,) * 3, hu, 1.5, ragged=0.1, lobes=3, denser=haze))
    return result


def metastases(p: Site) -> list[Opacity | Focus]:
    """Return 3 to 40 round nodules of 4 to 40 mm, more of them at the bases."""
    rng = p.rng
    usual = rng.uniform(1.0, 2.2)
    weight = np.exp(1.2 * p.basal()) * np.ones_like(p.lungs)
    result: list[Opacity | Focus] = []
    for centre in p.likely_points(int(rng.integers(3, 41)), weight):
        radius = float(np.clip(rng.lognormal(usual, 0.45), 2, 20))
        result.append(Focus(centre, (radius,) * 3, _enhanced(p, rng.uniform(-20, 40)), 1.5, ragged=0.04))
    return result


def post_obstructive(p: Site) -> list[Opacity | Focus]:
    """Return a mass at a hilum, and the lobe behind it without air: its bronchi and a wedge up to the pleura."""
    rng = p.rng
    side = rng.choice([-1, 1])
    hilum = np.array([p.subject.carina_z - rng.uniform(0, 35), rng.uniform(-5, 18), side * rng.uniform(38, 58)])
    size = rng.uniform(14, 32)
    mass = Focus(
        tuple(map(float, hilum)), tuple(map(float, size * rng.uniform(0.8, 1.2, 3))), _enhanced(p, rng.uniform(20, 45)),
        2.0, ragged=0.12, lobes=4, phase=rng.uniform(0, 6),
    )  # fmt: skip
    direction = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.8, 0.9), side])
    direction /= np.linalg.norm(direction)
    dz, dy, dx = p.z - hilum[0], p.y - hilum[1], p.x - hilum[2]
    along = dz * direction[0] + dy * direction[1] + dx * direction[2]
    away = np.sqrt(np.maximum(dz * dz + dy * dy + dx * dx - along * along, 0))
    wedge = away - np.maximum(along, 0) * rng.uniform(0.35, 0.9) - 6 + 4 * p.noise(14)
    border = fissure(p.subject, p.z, p.y, p.x) * (1 if direction[1] > 0.1 else -1)
    lobe = np.maximum(np.where(p.x * side > 0, border, 60), wedge - 0.5 * size)
    dense = lobe.astype(np.float32)
    haze = (lobe - rng.uniform(2, 12) + 4 * p.noise(10)).astype(np.float32)
    return [
        Opacity(haze, rng.uniform(4, 12), rng.uniform(-620, -350), denser=DENSER_HU),
        Opacity(dense, rng.uniform(2, 6), _enhanced(p, rng.uniform(0, 45))),
        mass,
    ]


def _enhanced(p: Site, hu: float) -> float:
    """Return the density of a tumour or of airless lung, with contrast medium where the person has some."""
    return float(hu + (p.rng.uniform(10, 60) if p.subject.contrast else 0.0))


def add_lymph_nodes(organs: Organs, p: Site) -> np.ndarray:
    """Enlarge nodes of 10 to 40 mm in the mediastinum and the hila: they displace the lungs, in place.

    Returns:
      Signed distance to the nodes, mm, on the coarse grid.
    """
    rng = p.rng
    carina = organs.carina
    stations = np.array([[18, -8, -18], [12, -14, 24], [-14, 6, 0], [-20, 4, -40], [-22, 4, 42], [30, -18, 6]])
    nodes = np.full(p.lungs.shape, 60, np.float32)
    for station in stations[rng.random(len(stations)) < rng.uniform(0.3, 0.9)]:
        centre = carina + station + rng.normal(0, 4, 3)
        np.minimum(nodes, ellipsoid(p.z, p.y, p.x, centre, rng.uniform(6, 19, 3)), out=nodes)
    organs.mediastinum = smooth_union(organs.mediastinum, nodes, 5)
    organs.lungs = np.maximum(organs.lungs, -nodes)
    return nodes
