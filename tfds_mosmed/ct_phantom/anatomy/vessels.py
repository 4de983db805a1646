"""Branching trees of the lungs: arteries with their bronchi, and veins.

A tree grows by bisection: a branch heads for the centre of the points that it supplies, splits them in two along their
longest direction, and so on until each branch supplies one point. Radii follow Murray's law, r^g ~ points supplied.
"""

import dataclasses

import numpy as np

MURRAY = 2.85  # exponent; 3 in theory, 2.3-2.8 measured in lungs
STEM_MM = 3.0  # above this radius, the stems at the hilum grow more slowly than by the law
STEM_GROWTH = 0.4  # how much more slowly
NEAR = 0.2  # least length of a branch that splits sideways, as a share of the way to what it supplies
STEP_MM = 0.7  # between the samples along a branch


@dataclasses.dataclass
class Tubes:
    """Sampled centre lines: positions (n, 3) in (z, y, x) mm, radii (n,) mm, float32."""

    position: np.ndarray
    radius: np.ndarray
    level: np.ndarray  # how far the tube lies in the plane of the slices, 0 (upright) .. 1

    def near(self, z: float, reach: float) -> "Tubes":
        """Return the samples that are within `reach` of the plane at height z; they must be sorted by height."""
        most = reach + float(self.radius.max(initial=0))
        part = slice(*np.searchsorted(self.position[:, 0], [z - most, z + most], side="left"))
        around = self.select(part)
        return around.select(np.abs(around.position[:, 0] - z) < around.radius + reach)

    def by_height(self) -> "Tubes":
        """Return the samples sorted by height."""
        return self.select(np.argsort(self.position[:, 0]))

    def select(self, chosen: np.ndarray | slice) -> "Tubes":
        """Return the samples that a mask, indices or a slice choose."""
        return Tubes(self.position[chosen], self.radius[chosen], self.level[chosen])


@dataclasses.dataclass
class Branches:
    """Segments of trees: start, end (n, 3) mm; incoming direction (n, 3); points supplied (n,); tree (n,)."""

    start: np.ndarray
    end: np.ndarray
    heading: np.ndarray
    supplied: np.ndarray
    tree: np.ndarray


def grow(
    roots: np.ndarray, headings: np.ndarray, targets: list[np.ndarray], rng: np.random.Generator, fan: float = 0.0
) -> Branches:
    """Grow one tree per root towards its targets, all trees at once, level by level.

    Args:
      roots: (tree, 3) positions, mm.
      headings: (tree, 3) unit vectors in which the roots set out.
      targets: for each tree (points, 3) positions to supply.
      rng: source of the irregularities.
      fan: how strictly branches split sideways, 0 .. 1, and before they reach what they supply, so that few turn back.
    """
    points = np.concatenate(targets).astype(np.float32)
    node = np.repeat(np.arange(len(roots)), [len(t) for t in targets])
    start, heading, tree = roots.astype(np.float32), headings.astype(np.float32), np.arange(len(roots))
    made = []
    while len(points):
        first = np.flatnonzero(np.r_[True, node[1:] != node[:-1]])
        count = np.diff(np.r_[first, len(node)])
        centre = np.add.reduceat(points, first) / count[:, None]
        reach = np.where(count == 1, 1.0, rng.uniform(0.3, 0.6, len(count)))[:, None]
        ahead = centre - start
        if fan:
            distance = np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-3)
            ahead /= distance
            which = np.repeat(np.arange(len(count)), count)
            along = np.einsum("ij,ij->i", points - start[which], ahead[which])
            nearest = np.minimum.reduceat(along, first)[:, None] / distance
            reach = np.where(count[:, None] == 1, 1.0, np.clip(nearest, NEAR, reach))
        end = (start + (centre - start) * reach).astype(np.float32)
        made.append((start, end, heading, count, tree))
        # A branch leaves its parent in the direction in which the parent's curve arrived.
        away = end - _control(start, end, heading)
        heading = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-3)
        keep = (count > 1)[np.repeat(np.arange(len(count)), count)]
        old = np.repeat(np.arange(len(count)), count)[keep]
        points = points[keep]
        if not len(points):
            break
        begin = np.flatnonzero(np.r_[True, old[1:] != old[:-1]])
        busy = old[begin]
        side = points - centre[old]
        if fan:
            side -= np.float32(fan) * np.einsum("ij,ij->i", side, ahead[old])[:, None] * ahead[old]
        axis = rng.standard_normal((len(count), 3)).astype(np.float32)
        for _ in range(2):  # power iteration towards the longest direction
            along = np.einsum("ij,ij->i", side, axis[old])
            pull = np.add.reduceat(side * along[:, None], begin)
            axis[busy] = pull / np.maximum(np.linalg.norm(pull, axis=1, keepdims=True), 1e-6)
        along = np.einsum("ij,ij->i", side, axis[old])
        order = np.lexsort((along, old))
        points, old = points[order], old[order]
        share = rng.uniform(0.12, 0.5, len(count))
        rank = np.arange(len(old)) - np.repeat(begin, count[busy])
        cut = np.clip(np.round(share * count), 1, np.maximum(count - 1, 1)).astype(int)
        node = 2 * old + (rank >= cut[old])
        parent = node[np.flatnonzero(np.r_[True, node[1:] != node[:-1]])] // 2
        start, heading, tree = end[parent], heading[parent].astype(np.float32), tree[parent]
    return Branches(*(np.concatenate(part) for part in zip(*made, strict=True)))


def _control(start: np.ndarray, end: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Return the middle control points of the quadratic Bezier curves that branches follow."""
    return start + heading * (0.3 * np.linalg.norm(end - start, axis=1, keepdims=True))


def radii(branches: Branches, tip: float, stem_growth: float = STEM_GROWTH, stem_mm: float = STEM_MM) -> np.ndarray:
    """Return the radius of each branch in mm, from the radius of a branch that supplies one point."""
    radius = tip * branches.supplied.astype(np.float32) ** np.float32(1 / MURRAY)
    return np.minimum(radius, stem_mm + stem_growth * (radius - stem_mm)).astype(np.float32)


def sample(branches: Branches, radius: np.ndarray, step: float = STEP_MM) -> Tubes:
    """Sample points along the curved branches; the radius tapers by a fifth along each branch."""
    length = np.linalg.norm(branches.end - branches.start, axis=1)
    which, count = _sampling(length, step)
    t = ((np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[which]).astype(np.float32)
    bend = _control(branches.start, branches.end, branches.heading)
    t1 = t[:, None]
    curve = (1 - t1) ** 2 * branches.start[which] + 2 * t1 * (1 - t1) * bend[which] + t1**2 * branches.end[which]
    level = np.linalg.norm(branches.end[:, 1:] - branches.start[:, 1:], axis=1) / np.maximum(length, 1e-3)
    return Tubes(curve.astype(np.float32), (radius[which] * (1 - 0.2 * t)).astype(np.float32), level[which])


def sampled_branches(branches: Branches, step: float = STEP_MM) -> np.ndarray:
    """Return the branch of each sample of `sample`, (n,)."""
    return _sampling(np.linalg.norm(branches.end - branches.start, axis=1), step)[0]


def _sampling(length: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the branch of each sample, and the number of samples of each branch."""
    count = np.maximum((length / step).astype(int), 1)
    return np.repeat(np.arange(len(count)), count), count


def draw(
    tubes: Tubes,
    z: float,
    slab: float,
    softness: float,
    x0: float,
    y0: float,
    pixel: float,
    shape: tuple[int, int],
    contrast: float = 1.3,
) -> np.ndarray:
    """Return the share of each pixel, in [0, 1], that tubes fill in a slab.

    A sample is a ball cut by the slab into a disc of radius sqrt(r^2 - dz^2). A disc thinner than the kernel or shorter
    than the slab fills its pixels only in part.

    Args:
      tubes: samples of the centre lines, sorted by height.
      z: height of the slab's middle, mm.
      slab: thickness, mm.
      softness: width of an edge in plane, mm.
      x0: x of the first column.
      y0: y of the first row.
      pixel: size, mm.
      shape: (rows, columns) of the result.
      contrast: how fast the share grows with the radius of a tube that is thinner than the kernel.
    """
    image = np.zeros(shape, np.float32)
    near = tubes.near(z, 0.5 * slab)
    if not len(near.radius):
        return image
    offset = np.maximum(np.abs(near.position[:, 0] - z) - 0.5 * slab, 0)
    disc = np.sqrt(np.maximum(near.radius**2 - offset**2, 0))
    fill = np.minimum(1, 2.2 * disc / (slab * np.maximum(near.level, 0.2))) * np.minimum(
        1, 0.1 + contrast * disc / softness
    )
    column = (near.position[:, 2] - x0) / pixel
    row = (near.position[:, 1] - y0) / pixel
    reach = np.ceil((disc + 0.5 * softness) / pixel).astype(int)
    within = np.minimum(np.minimum(row, shape[0] - 1 - row), np.minimum(column, shape[1] - 1 - column)) > reach
    reach[~within] = -1
    for k in range(max(int(reach.min()), 0), int(reach.max()) + 1):
        chosen = np.flatnonzero(reach == k)
        if not len(chosen):
            continue
        r0, c0 = np.round(row[chosen]).astype(np.intp), np.round(column[chosen]).astype(np.intp)
        steps = np.arange(-k, k + 1, dtype=np.float32)
        dy = ((steps[None] - (row[chosen] - r0)[:, None]) * pixel)[:, :, None]
        dx = ((steps[None] - (column[chosen] - c0)[:, None]) * pixel)[:, None, :]
        cover = 0.5 + (disc[chosen][:, None, None] - np.sqrt(dy * dy + dx * dx)) / softness
        cover = np.clip(cover, 0, 1) * fill[chosen][:, None, None]
        rows, columns = (first[:, None] + steps.astype(np.intp) for first in (r0, c0))
        pixels = rows[:, :, None] * shape[1] + columns[:, None, :]
        np.maximum.at(image.reshape(-1), pixels.reshape(-1), cover.reshape(-1).astype(np.float32))
    return image
