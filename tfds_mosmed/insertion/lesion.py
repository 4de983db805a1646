"""Painting of a lesion into a scan at its own resolution.

Image-based insertion with the resolution and noise of the scan follows Robins et al. (Physics in Medicine and Biology
2017); for virtual imaging trials see Abadi et al. (Journal of Medical Imaging 2020), for those of COVID-19 Abadi et al.
(AJR 2021).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from tfds_mosmed.insertion.image_quality import ImageQuality
from tfds_mosmed.insertion.places import Place
from tfds_mosmed.preprocessing.lung_region import CLOSED_MM, Box, close_in_plane
from tfds_mosmed.preprocessing.lungs import LungSegmentation

FLUID_HU = 40.0  # of the exudate that fills the alveoli
MIN_CONTRAST_HU = 80.0  # to the lung around; less is not seen by a reader either
DEPTH = 0.65  # of the centre below the pleura, in radii
REACH = 1.2  # from the centre to the sides of the box, in diameters
MAX_REACH, MAX_OFF_MM = 1.6, 3.0  # radii and mm that a lesion reaches from its centre in a narrow lung
LATTICE = 40  # points along the box, on which volumes are measured
WAVES = 16
AERATED_HU, PLEURA_HU = -500, -350  # lung without vessels; half lung, half chest wall
VESSEL_MM = 3.0  # half the width of vessels that are part of the lung
PLANE_MM = 0.7  # between the planes that a slice is the mean of
FILTER_PIXELS = 5


class Kind(NamedTuple):
    """Appearance of a kind of lesions.

    Attributes:
      ragged: irregularity of the outline, as a share of the radius.
      margin_mm: width of the edge, at most a third of the diameter.
      mottle: standard deviation of what is added, as a share of it.
      rim_mm: width of a ring of consolidation inside the edge, at most a fifth of the diameter.
    """

    ragged: float
    margin_mm: float
    mottle: float
    rim_mm: float = 0.0


KINDS = {
    "ground_glass": Kind(ragged=0.22, margin_mm=5.0, mottle=0.15),
    "consolidation": Kind(ragged=0.22, margin_mm=2.0, mottle=0.03),
    # The ring is at least 2 mm wide (Kim et al., AJR 2003).
    "reversed_halo": Kind(ragged=0.22, margin_mm=2.0, mottle=0.15, rim_mm=3.0),
}
RIM_HU = -80.0  # of the ring, as those of the phantoms have in the mean
OUTLINE = (0.4, 2.0)  # wavelengths of its irregularities, in diameters
MOTTLE_MM = (4.0, 10.0)
CONSOLIDATION_HU = -300.0  # from which on lung hides its vessels (Fleischner Society's glossary, Radiology 2008)


class Lesion(NamedTuple):
    """A lesion to be painted.

    Attributes:
      diameter_mm: of the sphere of the same volume.
      hu: mean density inside, away from the edge, a ring and larger vessels.
      seed: of its shape and texture.
      stated_kind: one of `KINDS`; None: the one that follows from the density.
    """

    diameter_mm: float
    hu: float
    seed: int = 0
    stated_kind: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.stated_kind or ("consolidation" if self.hu >= CONSOLIDATION_HU else "ground_glass")


class Insertion(NamedTuple):
    """A painted part of a scan.

    Attributes:
      box: the part, (slice, row, column).
      hu: int16, its voxels with the lesion.
      cover: float32, the share of each voxel that is lesion, from 0 to 1.
    """

    box: Box
    hu: np.ndarray
    cover: np.ndarray


def lung_surroundings(chest: LungSegmentation) -> np.ndarray:
    """Return where lesions may be: the lungs with their vessels and a voxel around them, bool on the coarse grid.

    Raises:
      ValueError: the chest has no lungs.
    """
    if chest.mask is None:
        raise ValueError("`chest` has no lungs.")
    filled = close_in_plane(chest.mask, [round(CLOSED_MM / step) for step in chest.spacing_mm[1:]])
    return ndimage.binary_dilation(filled, np.ones((1, 3, 3), bool))


def insert_lesion(
    hu: np.ndarray,
    spacing_mm: Sequence[float],
    surroundings: np.ndarray,
    quality: ImageQuality,
    place: Place,
    lesion: Lesion,
) -> Insertion | None:
    """Paint a lesion into a copy of a part of a scan.

    The lesion fills a share of the air with fluid: vessels stay visible in ground glass and vanish in consolidation, a
    voxel that is half chest wall gets half as much, and nothing denser than fluid changes. What is added depends on the
    scan without its noise, so the scan keeps its noise. A reversed halo has its density inside a denser ring.

    Args:
      hu: the scan, (slice, row, column); it is not changed.
      spacing_mm: along the same axes.
      surroundings: see `lung_surroundings`.
      quality: the lesion is as blurred, and the slices are as thick.
      place: where.
      lesion: what.

    Returns:
      The part, which is unchanged if the lesion lies between two slices; None if there is too little lung for it, or
      the lung is almost as dense.
    """
    spacing, kind = np.asarray(spacing_mm, float), KINDS[lesion.kind]
    centre = np.asarray(place.surface_mm) + DEPTH * lesion.diameter_mm / 2 * np.asarray(place.inward)
    reach = REACH * lesion.diameter_mm + quality.slice_mm
    low = np.clip(np.floor((centre - reach) / spacing).astype(int), 0, np.array(hu.shape) - 1)
    high = np.clip(np.ceil((centre + reach) / spacing).astype(int) + 1, low + 1, hu.shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    part = np.maximum(hu[box].astype(np.float32), -1024)
    lungs = _lungs_in(part, box, hu.shape, spacing, surroundings)
    start = low * spacing - centre
    level = _level(lungs, start, spacing, lesion)
    if level is None:
        return None
    cover = _cover(lungs, start, spacing, quality, lesion, level)
    lung_hu = _lung_hu(part, lungs & (cover > 0.05), place.lung_hu)
    if lesion.hu - lung_hu < MIN_CONTRAST_HU:
        return None
    share, rim_share = ((hu - lung_hu) / (FLUID_HU - lung_hu) for hu in (lesion.hu, RIM_HU))
    mottle = _waves(_axes(start, part.shape, spacing), MOTTLE_MM, lesion.seed + 1)
    mottle -= np.average(mottle, weights=cover**2 + 1e-6)  # the mean of few waves over a small lesion is not 0
    filled = share * (1 + kind.mottle * mottle)
    if kind.rim_mm:
        inside = level - min(kind.rim_mm, lesion.diameter_mm / 5)
        rim = 1 - _cover(lungs, start, spacing, quality, lesion, inside) / np.maximum(cover, 0.01)
        filled += rim * (rim_share - filled)
    air = np.stack([FLUID_HU - _without_noise(plane, quality.noise_hu) for plane in part])
    painted = np.rint(part + cover * np.clip(filled, 0, 1) * np.maximum(air, 0))
    return Insertion(box, np.where(cover > 0, painted, hu[box]).astype(np.int16), cover)


def _lungs_in(part: np.ndarray, box: Box, shape: Sequence[int], spacing: np.ndarray, coarse) -> np.ndarray:
    """Return the lungs with their smaller vessels, bool on the voxels of a part of the scan."""
    near = coarse[
        np.ix_(*(np.arange(b.start, b.stop) * of // size for b, of, size in zip(box, coarse.shape, shape, strict=True)))
    ]
    blurred: Any = ndimage.uniform_filter(part, (1, 3, 3))  # type: ignore[arg-type]
    return near & close_in_plane(near & (blurred < PLEURA_HU), [round(VESSEL_MM / step) for step in spacing[1:]])


def _edge_mm(lesion: Lesion) -> float:
    return min(KINDS[lesion.kind].margin_mm, lesion.diameter_mm / 3)


def _cover(lungs, start_mm, spacing, quality: ImageQuality, lesion: Lesion, level: float) -> np.ndarray:
    """Return the share of each voxel that is nearer than the middle of the edge, blurred as the scan is."""
    planes = math.ceil(quality.slice_mm / PLANE_MM)
    offsets = quality.slice_mm * ((np.arange(planes) + 0.5) / planes - 0.5)
    z, y, x = _axes(start_mm, lungs.shape, spacing)
    cover = np.zeros(lungs.shape, np.float32)
    for offset in offsets:
        cover += np.clip(0.5 - (_distance((z + offset, y, x), lesion) - level) / _edge_mm(lesion), 0, 1)
    # Pixels that are half chest wall count whole: they have half as much air to be filled.
    edge: Any = ndimage.maximum_filter(lungs, (1, 3, 3))
    cover = ndimage.gaussian_filter(cover * edge / np.float32(planes), (0, *(quality.blur_mm / spacing[1:])))
    cover[~edge | (cover < 0.01)] = 0
    return cover


def _level(lungs: np.ndarray, start_mm: np.ndarray, spacing: np.ndarray, lesion: Lesion) -> float | None:
    """Return the distance of the middle of the edge, so that the volume is that of a sphere of the diameter.

    None if there is too little lung.
    """
    side = 2 * REACH * lesion.diameter_mm / LATTICE
    axis = (np.arange(LATTICE) + 0.5) * side - REACH * lesion.diameter_mm
    index = [np.rint((axis - start) / step).astype(int) for start, step in zip(start_mm, spacing, strict=True)]
    known = [np.clip(each, 0, size - 1) for each, size in zip(index, lungs.shape, strict=True)]
    z, y, x = np.meshgrid(*map(np.equal, index, known), indexing="ij", sparse=True)
    inside = lungs[np.ix_(*known)] & z & y & x
    # The outer half of the soft edge of a sphere is larger than the inner one, by this factor.
    needed = round(math.pi / 6 * lesion.diameter_mm**3 / side**3 / (1 + (_edge_mm(lesion) / lesion.diameter_mm) ** 2))
    distance = _distance((axis, axis, axis), lesion)[inside]
    if len(distance) <= needed:
        return None
    level = float(np.partition(distance, needed)[needed])
    return level if level <= MAX_REACH * lesion.diameter_mm / 2 + MAX_OFF_MM else None


def _distance(axes: Sequence[np.ndarray], lesion: Lesion) -> np.ndarray:
    """Return the distance from the centre with the irregularities of the outline, mm, (slice, row, column)."""
    z, y, x = np.ix_(*axes)
    shape = _waves(axes, [lesion.diameter_mm * each for each in OUTLINE], lesion.seed)
    return np.sqrt(z * z + y * y + x * x) + KINDS[lesion.kind].ragged * lesion.diameter_mm / 2 * shape


def _axes(start_mm: np.ndarray, shape: Sequence[int], spacing: np.ndarray) -> list[np.ndarray]:
    """Return the positions of voxels along each axis, mm from the centre of the lesion."""
    return [start + step * np.arange(size) for start, step, size in zip(start_mm, spacing, shape, strict=True)]


def _waves(axes: Sequence[np.ndarray], wavelengths: Sequence[float], seed: int) -> np.ndarray:
    """Return a sum of random waves of unit variance at the points of a grid, float32 (slice, row, column)."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    vectors = direction * 2 * np.pi / rng.uniform(wavelengths[0], wavelengths[1], (WAVES, 1))
    z, y, x = (np.exp(1j * np.outer(axis, vectors[:, k])).astype(np.complex64) for k, axis in enumerate(axes))
    z *= np.exp(2j * np.pi * rng.random(WAVES)).astype(np.complex64)
    zy = y[None] * z[:, None]
    # The real part of a complex product, at half its cost.
    return (
        np.concatenate([zy.real, -zy.imag], 2) @ np.concatenate([x.real, x.imag], 1).T * np.float32(np.sqrt(2 / WAVES))
    )


def _lung_hu(part: np.ndarray, region: np.ndarray, otherwise: float) -> float:
    """Return the median density of lung without vessels in a region."""
    values = part[region & (part < AERATED_HU)]
    return float(np.median(values)) if len(values) else otherwise


def _without_noise(plane: np.ndarray, noise_hu: float) -> np.ndarray:
    """Return an estimate of a slice without noise, which keeps what varies more (Lee, IEEE TPAMI 1980)."""
    mean = ndimage.uniform_filter(plane, FILTER_PIXELS)
    variance = np.maximum(ndimage.uniform_filter(plane * plane, FILTER_PIXELS) - mean * mean, 1e-3)
    # Twice the variance of the noise, because in so few pixels it is often larger than in the mean.
    return mean + np.maximum(1 - 2 * noise_hu**2 / variance, 0) * (plane - mean)
