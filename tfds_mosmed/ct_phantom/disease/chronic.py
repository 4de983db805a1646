"""Diseases without infection: fibrosis, heart failure, effusion, pneumothorax, surgery.

After Hansell et al. (Radiology 2008, glossary of terms), Raghu et al. (AJRCCM 2018, usual interstitial pneumonia),
Gluecker et al. (RadioGraphics 1999, pulmonary edema), and Kim et al. (RadioGraphics 2002, lung resection).
"""

import numpy as np

from tfds_mosmed.ct_phantom.disease.opacities import Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site

DENSER_HU = 70.0


def fibrosis(p: Site) -> list[Opacity | Focus]:
    """Return reticulation along the pleura of the bases, with rows of cysts (honeycombing) where it is advanced."""
    rng = p.rng
    advanced = rng.random()
    thick = rng.uniform(6, 20) + 22 * advanced
    depth = thick * np.clip(0.15 + p.basal() * rng.uniform(0.9, 1.6), 0, 1) * (1 + 0.35 * p.noise(20))
    depth *= 1 + 0.3 * p.posterior()
    distance = (np.minimum(-p.wall.cage, -p.lungs * 1.5) - depth).astype(np.float32)
    result: list[Opacity | Focus] = [
        Opacity(distance, rng.uniform(4, 10), rng.uniform(-720, -560), weave=rng.uniform(0.5, 1.1), denser=40.0)
    ]
    if advanced > 0.35:
        core = (distance + rng.uniform(2, 8) + 3 * p.noise(14)).astype(np.float32)
        result.append(Opacity(core, 2.0, rng.uniform(-350, -100), cysts=rng.uniform(0.3, 0.6)))
    return result


def effusion(p: Site, both: bool = False) -> list[Opacity | Focus]:
    """Return fluid behind the lung of one or both sides, and the compressed lung at its surface."""
    rng, s = p.rng, p.subject
    side = 0 if both else rng.choice([-1, 0, 1], p=[0.35, 0.3, 0.35])
    top = rng.uniform(0.35, 0.85) * s.lung_height
    depth = rng.uniform(8, 55) * np.clip(1.1 - p.z / top, 0, 1.1)
    level = (p.wall.middle_y + p.wall.half_depth)[:, None, None] - depth - 0.0025 * (np.abs(p.x) - 60) ** 2
    distance = (level - p.y + 80 * (p.x * side > 0) + 60 * (depth < 1)).astype(np.float32)
    compressed = distance - rng.uniform(4, 16) + 2 * p.noise(15)
    return [
        Opacity(compressed.astype(np.float32), 5.0, rng.uniform(-150, 60)),
        Opacity(distance, 1.5, rng.uniform(0, 25), fills=True),
    ]


def heart_failure(p: Site) -> list[Opacity | Focus]:
    """Return oedema: haze around the hila that spares the periphery, thick septa below, fluid on both sides."""
    rng, s = p.rng, p.subject
    reach = rng.uniform(35, 80)
    dz, dy = p.z - (s.carina_z - 25), p.y - p.wall.middle_y[:, None, None]
    from_hila = np.sqrt((dz / 1.4) ** 2 + dy**2 + np.square(np.abs(p.x) - 45)) - reach
    haze = np.maximum(from_hila + 8 * p.noise(25), p.wall.cage + rng.uniform(4, 14))
    septa = -p.wall.cage - rng.uniform(10, 30) * p.basal() + 3 * p.noise(20)
    low = (60 * (0.15 - p.posterior()) + 8 * p.noise(30)).astype(np.float32)
    result: list[Opacity | Focus] = [
        Opacity(low, 30.0, rng.uniform(-760, -640), denser=rng.uniform(20, 90)),
        Opacity(haze.astype(np.float32), rng.uniform(12, 28), rng.uniform(-700, -450), denser=DENSER_HU),
        Opacity(septa.astype(np.float32), 6.0, rng.uniform(-780, -680), weave=rng.uniform(0.4, 0.9), denser=20.0),
    ]
    return result + (effusion(p, both=True) if rng.random() < 0.8 else [])


def pneumothorax(p: Site) -> list[Opacity | Focus]:
    """Return air between chest wall and lung, most of it in front, where a patient on the back has it."""
    rng = p.rng
    side = p.one_lung()
    front = np.clip(0.25 - p.posterior(), 0.02, 1)
    depth = rng.uniform(10, 55) * front * (0.7 + 0.6 * (1 - p.basal())) * side
    distance = (-p.wall.cage - depth + 40 * (1 - side)).astype(np.float32)
    pleura = (np.abs(distance - 0.8) - 0.8).astype(np.float32)
    return [
        Opacity(pleura, 1.5, rng.uniform(-500, -150)),
        Opacity(distance, 1.0, -1000.0, fills=True),
    ]


def surgery(p: Site) -> list[Opacity | Focus]:
    """Return the line of staples of a resection, with the scar around it."""
    rng = p.rng
    centres = p.points(1, p.lungs < -10)
    if not centres:
        return []
    centre, along = np.array(centres[0]), rng.normal(0, 1, 3)
    along /= np.linalg.norm(along)
    hu = rng.uniform(600, 2500)
    result: list[Opacity | Focus] = []
    for step in np.arange(-rng.uniform(10, 30), rng.uniform(10, 30), 2.0):
        place = tuple(map(float, centre + step * along + rng.normal(0, 0.8, 3)))
        result.append(Focus(place, (3.0, 2.8, 2.8), rng.uniform(-300, 30), 2.0, ragged=0.3))
        result.append(Focus(place, (0.9, 0.8, 0.8), hu, 0.8))
    return result
