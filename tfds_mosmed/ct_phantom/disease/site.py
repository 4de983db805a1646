"""Site of a finding: lungs, chest wall, person and scan, and places in them."""

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import COARSE_MM, Acquisition
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.fields import value_noise
from tfds_mosmed.ct_phantom.anatomy.subject import Subject


class Site:
    """Lungs, chest wall, subject and scan, as the functions that draw findings need them."""

    def __init__(self, lungs, wall: ChestWall, subject: Subject, scan: Acquisition, rng, smooth: bool = True):
        self.smooth = smooth  # whether fields do not show the cells of their lattice, by which a network could go
        self.lungs, self.wall, self.subject, self.scan, self.rng = lungs, wall, subject, scan, rng
        self.z, self.y, self.x = scan.axes()

    def noise(self, cell: float) -> np.ndarray:
        """Draw a smooth field of unit variance with features of `cell` mm on the coarse grid."""
        if not self.smooth:
            return value_noise(self.rng, self.scan, cell)
        some, others = (value_noise(self.rng, self.scan, size) for size in (cell, 0.71 * cell))
        some += others
        some *= np.float32(0.5**0.5)
        return some

    def points(self, count: int, where: np.ndarray) -> list[tuple[float, float, float]]:
        """Draw (z, y, x) positions in mm inside a mask; none if it is empty."""
        inside = np.argwhere(where)
        if not len(inside):
            return []
        chosen = inside[self.rng.integers(0, len(inside), count)]
        jitter = self.rng.uniform(-3, 3, count)
        return [
            (float(self.z[k, 0, 0] + d), float(self.y[0, i, 0]), float(self.x[0, 0, j]))
            for (k, i, j), d in zip(chosen, jitter, strict=True)
        ]

    def likely_points(self, count: int, weight: np.ndarray) -> list[tuple[float, float, float]]:
        """Draw (z, y, x) positions in mm inside the lungs by weights on the coarse grid; z is that of a plane."""
        share = np.where(self.lungs < -3, weight, 0).astype(float).ravel()
        if not share.any():
            return []
        chosen = self.rng.choice(len(share), count, p=share / share.sum())
        planes = zip(*np.unravel_index(chosen, self.lungs.shape), strict=True)
        return [(float(self.z[k, 0, 0]), float(self.y[0, i, 0]), float(self.x[0, 0, j])) for k, i, j in planes]

    def one_lung(self) -> np.ndarray:
        """Draw a side; returns 1 on it and 0 on the other, (1, 1, column)."""
        return (self.x * self.rng.choice([-1, 1]) > 0).astype(np.float32)

    def basal(self) -> np.ndarray:
        """Return 1 at the base of the lungs, falling to 0 at their apices."""
        return np.clip(1 - self.z / self.subject.lung_height, 0, 1)

    def posterior(self) -> np.ndarray:
        """Return the position from front (-1) to back (1) of the chest."""
        return (self.y - self.wall.middle_y[:, None, None]) / self.subject.half_depth

    def litres(self) -> float:
        """Return the volume of the lungs."""
        return float((self.lungs < 0).sum()) * self.scan.plane_gap * COARSE_MM**2 / 1e6
