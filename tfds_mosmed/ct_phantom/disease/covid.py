"""COVID-19 beyond large ground glass: small patches, reversed halos, perilobular bands, residual fibrosis.

The signs are those of Bernheim et al. (Radiology 2020), Pan et al. (Radiology 2020), Kong and Agarwal (Radiology:
Cardiothoracic Imaging 2020) and Ojha et al. (European Radiology 2020); residues those of Han et al. (Radiology 2021).
Of 4598 patients, 79 % had lesions on both sides, 70 % peripheral ones, 87 % some in the right lower lobe (Karimian and
Azami, Polish Journal of Radiology 2021). In the first days lesions have a mean of -462 HU (standard deviation 99) and
most of their voxels -700 to -500 HU; later they are denser; they take 4 to 7 % of the lungs (52 patients,
doi:10.1007/s42058-020-00034-2). Single faint patches of 5 mm at -750 HU are chosen to be harder than that.
"""

import numpy as np

from tfds_mosmed.ct_phantom.disease.lesions import SHARES, covid_lesions
from tfds_mosmed.ct_phantom.disease.opacities import DENSER_HU, Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site

SMALL_SHARE = 0.03  # of the lungs
SMALL_AMONG_CT1 = 0.6
# Of 16 patients with findings on the first two days, 6 had them on one side (Bernheim et al.).
ONE_SIDED = 0.37
FAINTEST_HU, SMALLEST_MM = -750.0, 5.0


def covid(category: str, p: Site) -> tuple[list[Opacity | Focus], list[str]]:
    """Draw lesions of a category; returns them and the names of their patterns.

    Three of five CT-1 involve less than 3 % of the lungs, down to one patch of 5 mm.
    """
    rng = p.rng
    if category == "CT-1" and rng.random() < SMALL_AMONG_CT1:
        drawn = small_patches(p)
    else:
        low = SMALL_SHARE * 1.15 if category == "CT-1" else SHARES[category][0]
        opacities, names = covid_lesions(category, p, least=low)
        drawn: list[Opacity | Focus] = list(opacities)
        for opacity, name in zip(opacities, ("ground_glass", "consolidation"), strict=False):
            opacity.denser, opacity.name = DENSER_HU, name
        if "crazy_paving" in names:
            opacities[0].name = "crazy_paving"
        if rng.random() < 0.2:
            drawn += perilobular(p, opacities[0].distance)
        if rng.random() < 0.15:
            drawn += residual_fibrosis(p, opacities[0].distance)
    return drawn, list(dict.fromkeys(part.name for part in drawn))


def small_patches(p: Site) -> list[Opacity | Focus]:
    """Return few patches of 5 mm and more that take at most 3 % of the lungs, mostly at the pleura, behind and low."""
    rng = p.rng
    smallest = 4.19 * (SMALLEST_MM / 2) ** 3 / (p.litres() * 1e6)
    share = float(np.exp(rng.uniform(np.log(smallest), np.log(0.9 * SMALL_SHARE))))
    count = 1 + int(rng.poisson(min(60 * share, 5) + 0.6))
    size = rng.lognormal(0, 0.35, count)
    radius = size * (share * p.litres() * 1e6 / (4.19 * np.sum(size**3))) ** (1 / 3)
    radius = np.maximum(radius, SMALLEST_MM / 2)
    weight = np.exp(p.wall.cage / rng.uniform(6, 20) + rng.uniform(0.5, 3) * p.posterior() + 1.5 * p.basal())
    if rng.random() < ONE_SIDED:
        weight = weight * p.one_lung()
    faint = rng.uniform(FAINTEST_HU, -520)
    result: list[Opacity | Focus] = []
    for centre, r in zip(p.likely_points(count, weight), radius, strict=True):
        stretch = rng.normal(0, 0.15, 3)
        radii = tuple(float(v) for v in r * np.exp(stretch - stretch.mean()))
        outline = {"ragged": rng.uniform(0, 0.3), "lobes": int(rng.integers(2, 6)), "phase": rng.uniform(0, 6)}
        patch = Focus(
            centre, radii, float(np.clip(faint + rng.normal(0, 40), FAINTEST_HU, -400)), float(rng.uniform(1.5, 5)),
            denser=DENSER_HU, lesion=True, name="ground_glass", **outline,
        )  # fmt: skip
        if r > 7 and rng.random() < 0.12:
            patch.rim, patch.rim_hu, patch.name = float(rng.uniform(2, 5)), rng.uniform(-200, 40), "reversed_halo"
        elif r > 4 and rng.random() < 0.25:
            patch.rim, patch.rim_hu, patch.name = 2 * r, rng.uniform(-350, 40), "consolidation"
        result.append(patch)
    return result


def perilobular(p: Site, ground_glass: np.ndarray) -> list[Opacity | Focus]:
    """Return arcs along the borders of lobules near the pleura, within ground glass."""
    arcs = np.abs(p.noise(p.rng.uniform(12, 18))) * 9 - p.rng.uniform(0.8, 1.8)
    distance = np.maximum(np.maximum(arcs, -p.wall.cage - p.rng.uniform(15, 28)), ground_glass)
    return [Opacity(distance.astype(np.float32), 2.0, p.rng.uniform(-350, -50), lesion=True, name="perilobular")]


def residual_fibrosis(p: Site, ground_glass: np.ndarray) -> list[Opacity | Focus]:
    """Return bands parallel to the pleura and a coarse net, as weeks after the infection."""
    rng, name = p.rng, "residual_fibrosis"
    sheet = np.abs(p.wall.cage + rng.uniform(6, 16) + 4 * p.noise(25)) - rng.uniform(0.8, 2.2)
    band = np.maximum(sheet, ground_glass).astype(np.float32)
    net = np.maximum(ground_glass, -p.wall.cage - 25).astype(np.float32)
    return [
        Opacity(net, 5.0, rng.uniform(-760, -640), weave=rng.uniform(0.3, 0.8), lesion=True, denser=30.0, name=name),
        Opacity(band, 2.0, rng.uniform(-400, -50), lesion=True, name=name),
    ]
