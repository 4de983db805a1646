"""Other findings in lungs, which a weak classifier mistakes for COVID-19, in subjects with and without it."""

import numpy as np

from tfds_mosmed.ct_phantom.anatomy.fields import ellipsoid, fissure
from tfds_mosmed.ct_phantom.disease.opacities import Opacity
from tfds_mosmed.ct_phantom.disease.site import Site

# Probability of each finding in a negative and in a positive. Lobar pneumonia occurs in negatives alone, all others in
# both.
CHANCES = {
    "dependent_atelectasis": (0.28, 0.22),
    "emphysema": (0.14, 0.12),
    "bullae": (0.06, 0.05),
    "nodules": (0.18, 0.15),
    "apical_scar": (0.14, 0.12),
    "band": (0.14, 0.12),
    "effusion": (0.08, 0.08),
    "lobar_pneumonia": (0.10, 0.0),
    "mosaic": (0.08, 0.07),
    "motion": (0.14, 0.14),
}


def sample_findings(positive: bool, rng: np.random.Generator) -> list[str]:
    """Draw the names of the findings of one study; about a third of the negatives have none."""
    return [name for name, chance in CHANCES.items() if rng.random() < chance[int(positive)]]


def draw_findings(names: list[str], p: Site) -> list[Opacity]:
    """Draw the opacities of findings. "motion" has none: it is rendered with the slices."""
    return [opacity for name in names if name in MAKERS for opacity in MAKERS[name](p)]


def dependent_atelectasis(p: Site) -> list[Opacity]:
    """Return a band of poorly aerated lung along the back."""
    rng, wall = p.rng, p.wall
    back = np.clip((-wall.front - 0.55) / 0.45, 0, 1)
    low = np.clip(1.15 - p.z / (rng.uniform(0.5, 1.0) * p.subject.lung_height), 0, 1)
    thick = rng.uniform(5, 16) * back * low * (1 + 0.25 * p.noise(25))
    distance = -wall.cage - thick + 30 * (thick < 1)
    return [Opacity(distance.astype(np.float32), rng.uniform(4, 10), rng.uniform(-720, -420))]


def emphysema(p: Site) -> list[Opacity]:
    """Return holes, more of them in the upper lobes."""
    rng = p.rng
    holes = 4 * p.noise(rng.uniform(7, 14)) + rng.uniform(2, 7) * (p.z / p.subject.lung_height - 0.4)
    share = rng.uniform(0.04, 0.30)
    level = np.quantile(holes[p.lungs < 0], 1 - share)
    return [Opacity(level - holes, rng.uniform(2, 5), rng.uniform(-990, -950))]


def bullae(p: Site) -> list[Opacity]:
    """Return thin-walled bubbles under the pleura."""
    rng = p.rng
    edge = (p.lungs < -4) & (p.wall.cage > -16) & (p.z > rng.choice([0.2, 0.6]) * p.subject.lung_height)
    blebs = np.full(p.lungs.shape, 50, np.float32)
    for centre in p.points(int(rng.integers(1, 7)), edge):
        np.minimum(blebs, ellipsoid(p.z, p.y, p.x, centre, rng.uniform(5, 22, 3)), out=blebs)
    wall_of_bleb = np.abs(blebs) - 0.8
    return [
        Opacity(blebs, 2.0, -985.0),
        Opacity(wall_of_bleb.astype(np.float32), 2.0, rng.uniform(-600, -200)),
    ]


def nodules(p: Site) -> list[Opacity]:
    """Return small solid, calcified or ground-glass nodules."""
    rng = p.rng
    result = []
    for centre in p.points(int(rng.integers(1, 8)), p.lungs < -4):
        size = rng.lognormal(1.4, 0.45)
        hu = rng.choice([30.0, 350.0, -550.0], p=[0.7, 0.2, 0.1])
        shape = ellipsoid(p.z, p.y, p.x, centre, np.clip(size, 2.5, 14) * rng.uniform(0.8, 1.2, 3))
        result.append(Opacity(shape, 2.0, float(hu)))
    return result


def apical_scar(p: Site) -> list[Opacity]:
    """Return strands at the apices."""
    rng = p.rng
    high = np.clip((p.z / p.subject.lung_height - rng.uniform(0.75, 0.85)) / 0.15, 0, 1)
    sides = rng.choice([-1, 0, 1], p=[0.3, 0.4, 0.3])
    high = high * (1 - 0.8 * (p.x * sides > 0))
    strands = 5 * (1 - np.abs(p.noise(9)) * 2.2) + 3 * p.noise(20)
    depth = rng.uniform(4, 12) * high
    distance = np.minimum(np.maximum(-p.wall.cage - 2 * depth, 2 - strands), -p.wall.cage - 0.5 * depth)
    return [Opacity((distance + 8 * (high <= 0)).astype(np.float32), rng.uniform(2, 4), rng.uniform(-450, 20))]


def band(p: Site) -> list[Opacity]:
    """Return flat bands of atelectasis or scar."""
    rng = p.rng
    result = []
    for centre in p.points(int(rng.integers(1, 4)), (p.lungs < -3) & (p.z < 0.55 * p.subject.lung_height)):
        normal = rng.normal(0, 1, 3) * (0.8, 1.0, 0.7)
        normal /= np.linalg.norm(normal)
        plane = (p.z - centre[0]) * normal[0] + (p.y - centre[1]) * normal[1] + (p.x - centre[2]) * normal[2]
        sheet = np.abs(plane + 1.5 * p.noise(18)) - rng.uniform(0.6, 2.0)
        extent = ellipsoid(p.z, p.y, p.x, centre, rng.uniform(12, 40, 3))
        result.append(Opacity(np.maximum(sheet, extent).astype(np.float32), 2.0, rng.uniform(-400, 0)))
    return result


def effusion(p: Site) -> list[Opacity]:
    """Return the dense edge of the lung at an effusion, which itself is seen as fat."""
    rng, s = p.rng, p.subject
    side = rng.choice([-1, 0, 1], p=[0.35, 0.3, 0.35])
    depth = rng.uniform(8, 45) * np.clip(1.1 - p.z / (rng.uniform(0.35, 0.85) * s.lung_height), 0, 1.1)
    level = (p.wall.middle_y + p.wall.half_depth)[:, None, None] - depth - 0.0025 * (np.abs(p.x) - 60) ** 2
    distance = level - p.y + 80 * (p.x * side > 0) + 60 * (depth < 1)
    lung_edge = distance - rng.uniform(4, 14) + 2 * p.noise(15)
    return [
        Opacity(lung_edge.astype(np.float32), 5.0, rng.uniform(-100, 45)),
        Opacity(distance.astype(np.float32), 1.5, rng.uniform(2, 20), outside_lung=True),
    ]


def lobar_pneumonia(p: Site) -> list[Opacity]:
    """Return consolidation of one lobe with haze around it."""
    rng, s = p.rng, p.subject
    side = rng.choice([-1, 1])
    border = fissure(s, p.z, p.y, p.x)
    lower = rng.random() < 0.6
    lobe = border if lower else -border
    lobe = np.where(p.x * side > 0, lobe, 40)
    where = (p.lungs < -5) & (lobe < -15)
    centres = p.points(1, where)
    if not centres:
        return []
    extent = ellipsoid(p.z, p.y, p.x, centres[0], rng.uniform(35, 95, 3)) + 7 * p.noise(18)
    haze = np.maximum(lobe, extent).astype(np.float32)
    dense = np.maximum(lobe, extent + rng.uniform(4, 25) + 5 * p.noise(12)).astype(np.float32)
    return [
        Opacity(haze, rng.uniform(3, 6), rng.uniform(-650, -350)),
        Opacity(dense, rng.uniform(3, 7), rng.uniform(-60, 50)),
    ]


def mosaic(p: Site) -> list[Opacity]:
    """Return patches of lighter or denser lung."""
    rng = p.rng
    patches = 8 * p.noise(rng.uniform(18, 40))
    change = rng.uniform(-70, 60)
    return [Opacity(patches.astype(np.float32), 6.0, p.subject.parenchyma_hu + change)]


MAKERS = {
    maker.__name__: maker
    for maker in (
        dependent_atelectasis, emphysema, bullae, nodules, apical_scar, band, effusion, lobar_pneumonia, mosaic
    )
}  # fmt: skip
