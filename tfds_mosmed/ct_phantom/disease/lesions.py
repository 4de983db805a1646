"""COVID-like lesions that take an exact share of the lungs.

They follow the radiological descriptions: bilateral, peripheral, posterior and basal ground glass, with crazy paving
and consolidation as the disease progresses (Bernheim et al., Radiology 2020; Pan et al., Radiology 2020; see `covid`).
"""

import numpy as np

from tfds_mosmed.ct_phantom.disease.opacities import Opacity
from tfds_mosmed.ct_phantom.disease.site import Site

# MosMedData's shares of lung involved, with a margin, so that drawing at the pixels cannot leave them.
SHARES = {"CT-1": (0.01, 0.235), "CT-2": (0.265, 0.485), "CT-3": (0.515, 0.735), "CT-4": (0.765, 0.92)}
ONE_SIDED = 0.12  # of the cases with less than 15 % of the lungs
FOCI = {"CT-1": (1, 14), "CT-2": (6, 24), "CT-3": (12, 34), "CT-4": (16, 40)}


def covid_lesions(category: str, p: Site, least: float = 0.0) -> tuple[list[Opacity], list[str]]:
    """Draw lesions of a category within the lungs.

    Args:
      category: "CT-1" .. "CT-4".
      p: the lungs.
      least: least share of the lungs, where it is more than that of the category.

    Returns:
      The lesions, and the names of their types.
    """
    rng, wall = p.rng, p.wall
    low, high = SHARES[category]
    low = max(low, least)
    share = low * (high / low) ** rng.random() if category == "CT-1" and rng.random() < 0.6 else rng.uniform(low, high)
    score = _score(share, FOCI[category], p)
    if rng.random() < 0.25:  # a rim under the pleura is spared
        score = score - 4 * np.maximum(wall.cage + rng.uniform(3, 6), 0)
    inside = p.lungs < 0
    level = np.quantile(score[inside], 1 - share)
    distance = (level - score).astype(np.float32)
    distance /= _steepness(distance, inside)
    stage = rng.random()  # early: ground glass; later: paving and consolidation
    base = rng.uniform(-720, -480) + 60 * stage
    hu = base + rng.uniform(20, 70) * p.noise(rng.uniform(12, 35))
    weave = rng.uniform(0.3, 1.0) if rng.random() < 0.2 + 0.5 * stage else 0.0
    width = rng.uniform(3, 14)
    opacities = [Opacity(distance, width, np.clip(hu, -780, -350).astype(np.float32), weave, lesion=True)]
    names = ["ground_glass"] + (["crazy_paving"] if weave else [])
    if rng.random() < 0.15 + 0.75 * stage:
        dense = 14 * p.noise(rng.uniform(10, 22)) + 10 * np.exp(wall.cage / 9) - 0.6 * distance
        amount = rng.uniform(0.08, 0.45) * stage + 0.03
        cut = np.quantile(dense[inside & (distance < 0)], 1 - amount)
        core = cut - dense
        core = np.maximum(core / _steepness(core, inside), distance + 2).astype(np.float32)
        opacities.append(Opacity(core, rng.uniform(4, 12), rng.uniform(-120, 45), lesion=True))
        names.append("consolidation")
    return opacities, names


def _steepness(field: np.ndarray, inside: np.ndarray) -> np.float32:
    """Return the typical slope of a field at its zero, per mm in plane; the field divided by it measures distance."""
    near = inside[:, 1:, 1:] & (np.abs(field[:, 1:, 1:]) < 4)
    if not near.any():
        return np.float32(1)
    down, across = np.diff(field, axis=1)[:, :, 1:][near], np.diff(field, axis=2)[:, 1:, :][near]
    return np.float32(max(np.median(np.hypot(down, across)) / 3.0, 0.2))


def _score(share: float, foci: tuple[int, int], p: Site) -> np.ndarray:
    """Return a field whose upper quantile is the diseased part: foci with ragged edges, where COVID-19 is frequent."""
    rng, wall, lungs = p.rng, p.wall, p.lungs
    z, y, x = p.z, p.y, p.x
    h = p.subject.lung_height
    periphery = np.exp(wall.cage / rng.uniform(10, 25))
    preference = (
        rng.uniform(0.8, 3.5) * p.posterior()
        + rng.uniform(1.0, 4.0) * periphery
        + rng.uniform(-0.5, 3.0) * (0.5 - z / h)
    )
    if rng.random() < ONE_SIDED and share < 0.15:
        preference = preference - 6.0 * (x * rng.choice([-1, 1]) > 0)
    half = (slice(None), slice(None, None, 2), slice(None, None, 2))
    inside = np.argwhere(lungs[half] < -2)
    weight = np.exp(preference[half][tuple(inside.T)])
    most = foci[0] + (foci[1] - foci[0]) * (share / 0.25 if foci[0] == 1 else rng.random())
    count = max(1, round(most * rng.uniform(0.5, 1.3))) if share > 0.02 else int(rng.integers(1, 4))
    chosen = inside[rng.choice(len(inside), count, p=weight / weight.sum())]
    zs, ys, xs = z[:, 0, 0], y[0, ::2, 0], x[0, 0, ::2]
    volume = share * (lungs < 0).sum() * p.scan.plane_gap * 9.0
    radius = rng.lognormal(0, 0.45, count)
    radius *= (volume / (4.19 * (radius**3).sum())) ** (1 / 3)
    flat = rng.uniform(1.0, 2.2, count)
    score = np.full(lungs[half].shape, -80, np.float32)
    for (k, i, j), r, f in zip(chosen, radius, flat, strict=True):
        dz, dy, dx = zs[:, None, None] - zs[k], ys[None, :, None] - ys[i], xs[None, None, :] - xs[j]
        out = np.array([ys[i] - wall.middle_y[k], xs[j]])
        out = out / max(float(np.hypot(*out)), 1.0)
        radial = dy * out[0] + dx * out[1]
        d = np.sqrt(dz * dz + dy * dy + dx * dx + np.float32(f * f - 1) * radial * radial)
        np.maximum(score, np.float32(r * f**0.33) - d, out=score)
    score = _enlarged(_enlarged(score, 1, p.smooth), 2, p.smooth)[:, : lungs.shape[1], : lungs.shape[2]]
    typical = float(np.median(radius))
    ragged = min(0.35 * typical, 9) * p.noise(max(0.6 * typical, 9))
    ragged += min(0.2 * typical, 3.5) * p.noise(6)
    spread = 22 * share
    return (score + ragged + spread * np.clip(preference, -3, 4)).astype(np.float32)


def _enlarged(field: np.ndarray, axis: int, smooth: bool) -> np.ndarray:
    """Return a field with twice the voxels along an axis, repeated or, if `smooth`, with means between."""
    doubled = np.repeat(field, 2, axis)
    if smooth:
        between = (slice(None),) * axis + (slice(1, -1, 2),)
        doubled[between] += 0.5 * np.diff(field, axis=axis)
    return doubled
