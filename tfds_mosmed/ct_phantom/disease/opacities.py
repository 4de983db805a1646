"""Opacities and foci: regions of changed lung, which COVID-like lesions and other findings consist of."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition

DENSER_HU = 80.0  # by which haze raises the density of the lung around it at least


@dataclasses.dataclass
class Opacity:
    """Region in which the density of the lung is changed.

    Attributes:
      distance: signed distance-like field, mm, negative inside, (slice, row, column) on the coarse grid.
      width: mm over which the edge fades.
      hu: density inside, away from the edge; a number or a field like `distance`.
      weave: strength of a net of thickened septa inside, 0 .. 1 (crazy paving).
      lesion: whether it is a COVID-like lesion, and so part of the lesion mask.
      outside_lung: whether the lung mask ends at it; in its place, the fat within the rib cage is seen.
      cysts: width of the walls between cysts of air inside, as a share of the net's meshes, or 0 (honeycombing).
      fills: whether it takes the place of the lung (fluid, air): it is drawn as such, and the lung mask ends at it.
      denser: HU by which it raises the density of the lung around it at least.
      mottle_hu: standard deviation of the density inside, HU; its edge is uneven then.
      name: name of the finding in the map of findings.
    """

    distance: np.ndarray
    width: float
    hu: float | np.ndarray
    weave: float = 0.0
    lesion: bool = False
    outside_lung: bool = False
    cysts: float = 0.0
    fills: bool = False
    denser: float | None = None
    mottle_hu: float = 0.0
    name: str = ""

    @property
    def has_net(self) -> bool:
        """Return whether its density has an inner structure."""
        return bool(self.weave or self.cysts or self.mottle_hu)


@dataclasses.dataclass
class Focus:
    """Roundish lesion that is drawn at the pixels, so that it may be smaller than the coarse grid resolves.

    Attributes:
      centre: (z, y, x) mm.
      radii: along the same axes, mm.
      hu: density.
      width: mm over which the edge fades; half of it lies inside of the radii.
      ragged: depth of the notches or spicules of its outline, as a share of the radius.
      lobes: number of them around it in a slice.
      phase: turns them.
      rim: thickness of a ring of `rim_hu` at the surface, mm, or 0 (reversed halo, cavity).
      rim_hu: density of the ring.
      denser: HU by which it raises the density of the lung around it at least.
      mottle_hu: standard deviation of the density inside, HU; its edge is uneven then.
      lesion: whether it is a COVID-like lesion.
      name: name of the finding.
    """

    centre: Sequence[float]
    radii: Sequence[float]
    hu: float
    width: float = 1.5
    ragged: float = 0.0
    lobes: int = 5
    phase: float = 0.0
    rim: float = 0.0
    rim_hu: float = 0.0
    denser: float | None = None
    mottle_hu: float = 0.0
    lesion: bool = False
    name: str = ""

    def draw(self, scan: Acquisition, plane: int, box, lung, diseased, finding, number: int, net=None) -> None:
        """Draw it into the window `box` of a plane, in place: the lung's HU, the lesion mask, the map of findings.

        `net` is the field of its inner structure on the coarse grid, (row, column).
        """
        z, y, x = self.centre
        offset = abs(float(scan.z[plane]) - z)
        if offset > self.radii[0] * (1 + self.ragged) + 0.5 * (scan.slab + self.width):
            return
        reach = [radius * (1 + self.ragged) + self.width for radius in self.radii]
        rows, columns = scan.window(y - reach[1], y + reach[1], x - reach[2], x + reach[2])
        top, left = box[0].start, box[1].start
        rows, columns = (
            slice(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip((rows, columns), box, strict=True)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        dy, dx = scan.y[rows, None] - np.float32(y), scan.x[None, columns] - np.float32(x)
        hu, uneven = self.hu, 0.0
        if self.mottle_hu and net is not None:
            structure = scan.refine(net, rows, columns)
            uneven = np.float32(0.3 * self.width) * structure
            hu = hu + np.float32(self.mottle_hu) * structure
        cover, rim = self._cover(scan, plane, dy, dx, uneven)
        if self.denser is not None:
            hu = np.maximum(lung[part] + np.float32(self.denser), hu)
        lung[part] += (hu - lung[part]) * cover
        if self.rim:
            lung[part] += (self.rim_hu - lung[part]) * rim
        inside = cover >= 0.5
        if self.lesion:
            diseased[part] |= inside
        finding[part][inside] = number

    def _cover(self, scan: Acquisition, plane: int, dy, dx, uneven) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of each pixel in the focus and in its rim, as means over three depths of the slab.

        `uneven` is what the surface lies deeper by, mm.
        """
        flat = (dy / self.radii[1]) ** 2 + (dx / self.radii[2]) ** 2
        size = np.float32(min(self.radii))
        wave = 0.0
        if self.ragged:
            angle = np.arctan2(dy / self.radii[1], dx / self.radii[2])
            wave = sum(np.sin(n * self.lobes * angle + n * self.phase) / n for n in (1, 2, 3))
            wave = np.float32(0.6 * self.ragged) * wave * np.minimum(2 * flat, 1)  # no star at the centre
        width = max(self.width, scan.resolution)
        cover, rim = np.zeros_like(flat), np.zeros_like(flat)
        for part in (-1, 0, 1):
            dz = (float(scan.z[plane]) + part * scan.slab / 3 - self.centre[0]) / self.radii[0]
            distance = (np.sqrt(flat + np.float32(dz * dz)) - 1 - wave) * size + uneven
            cover += np.clip(0.5 - distance / width, 0, 1)
            if self.rim:
                rim += np.clip(0.5 - (np.abs(distance + 0.5 * self.rim) - 0.5 * self.rim) / width, 0, 1)
        return cover / 3, rim / 3
