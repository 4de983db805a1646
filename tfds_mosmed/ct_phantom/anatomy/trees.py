"""Trees of the lungs in a scan: blood vessels, and airways by their outer wall and their lumen."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy import vessels
from tfds_mosmed.ct_phantom.anatomy.organs import Organs
from tfds_mosmed.ct_phantom.anatomy.subject import Subject

_FIELDS = dataclasses.fields(vessels.Tubes)


@dataclasses.dataclass
class Trees:
    """Blood vessels, and airways by their outer wall and their lumen."""

    blood: vessels.Tubes
    wall: vessels.Tubes
    lumen: vessels.Tubes


@dataclasses.dataclass(frozen=True)
class WideBronchi:
    """Region in which the bronchi are widened.

    Attributes:
      centre: (z, y, x) mm.
      reach: radius of the region, mm.
      widening: factor of the bronchi's radius.
      plugged: share of the bronchi that mucus fills.
    """

    centre: np.ndarray
    reach: float
    widening: float
    plugged: float


def build_trees(
    subject: Subject,
    scan: Acquisition,
    organs: Organs,
    rng: np.random.Generator,
    wide: Sequence[WideBronchi] = (),
) -> Trees:
    """Grow arteries, veins and airways into the lungs."""
    z, y, x = scan.axes()
    inside = np.argwhere(organs.lungs < -4)
    positions = np.stack([z[inside[:, 0], 0, 0], y[0, inside[:, 1], 0], x[0, 0, inside[:, 2]]], 1)
    # Vessels are wider in the dependent parts of the lungs.
    weight = 1 + (0.6 + subject.crowding) * (positions[:, 1] / subject.half_depth)
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
    branches = vessels.grow(np.array(roots), np.array(headings), targets, rng, subject.fan)
    tip = 0.45 * subject.vessel_scale
    radius = vessels.radii(branches, tip, subject.stem_growth, subject.stem_mm)
    blood = vessels.sample(branches, radius)
    lumen, thick = _airways(branches, radius, subject, wide, rng)
    trunk = _trunk(organs, subject)
    thick = np.concatenate([thick, 0.45 + 0.1 * trunk.radius])
    lumen = vessels.Tubes(*(np.concatenate([getattr(t, f.name) for t in (lumen, trunk)]) for f in _FIELDS))
    wall = dataclasses.replace(lumen, radius=(lumen.radius + np.abs(thick)).astype(np.float32))
    open_ = thick > 0
    lumen = lumen if open_.all() else lumen.select(open_)
    return Trees(blood.by_height(), wall.by_height(), lumen.by_height())


def _airways(
    branches: vessels.Branches, radius, s: Subject, wide: Sequence[WideBronchi], rng
) -> tuple[vessels.Tubes, np.ndarray]:
    """Return the lumen of the bronchi and the thickness of their walls, mm, negative where mucus fills the lumen."""
    # A bronchus runs beside each artery; normally only the larger ones are seen.
    factor, plugged = _widening(branches, wide, rng)
    paired = (branches.tree % 2 == 0) & (radius > s.smallest_bronchus / factor)
    airways = vessels.Branches(*(getattr(branches, f.name)[paired] for f in dataclasses.fields(branches)))
    own_radius, factor, plugged = radius[paired], factor[paired], plugged[paired]
    beside = np.array([0.35, 0.75, 0.0]) + 0 * airways.start
    across = np.cross(airways.heading, beside)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 0.1)
    apart = own_radius * 2.0 if not wide else own_radius * (1.0 + factor)
    sideways = (np.array([0.0, 1.0, 0.0]) * np.sign(across[:, 1:2] + 1e-6) + across) * 0.7 * apart[:, None]
    airways = dataclasses.replace(airways, start=airways.start + sideways, end=airways.end + sideways)
    lumen = vessels.sample(airways, own_radius * 0.62 * factor)
    thick = s.bronchial_wall * (0.45 + 0.1 * lumen.radius)
    if wide:
        which = vessels.sampled_branches(airways)
        thick = (thick + 0.5 * np.minimum(factor[which] - 1, 1.5)) * np.where(plugged[which], -1, 1)
    return lumen, thick


def _widening(branches: vessels.Branches, wide: Sequence[WideBronchi], rng) -> tuple[np.ndarray, np.ndarray]:
    """Return for each branch the factor of its bronchus's radius, and whether mucus fills it."""
    factor, plugged = np.ones(len(branches.tree), np.float32), np.zeros(len(branches.tree), bool)
    for region in wide:
        distance = np.linalg.norm(branches.end - region.centre, axis=1) / region.reach
        widening = 1 + (region.widening - 1) * np.exp(-(distance**4))
        plugged |= (distance < 1) & (rng.random(len(plugged)) < region.plugged)
        factor = np.maximum(factor, widening.astype(np.float32))
    return factor, plugged


def without(tubes: vessels.Tubes, region: np.ndarray, scan: Acquisition) -> vessels.Tubes:
    """Return the samples outside of a region, a signed distance on the coarse grid: fluid and air displace vessels."""
    axes = (scan.z, scan.coarse_y, scan.coarse_x)
    index = []
    for axis, place in zip(axes, tubes.position.T, strict=True):
        middle = (axis[1:] + axis[:-1]) / 2
        index.append(np.searchsorted(middle, place))
    return tubes.select(region[tuple(index)] > -0.5)


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
