"""Noise, sharpness and slice thickness of a scan, measured in the scan itself, which inserted lesions have to share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

LOWEST_HU, HIGHEST_HU = -1024, 150  # edges of bone say nothing about those of lung
SOFT_TISSUE_HU = (-50, 120)
NOISE_PIXELS = 7  # side of the square in which a standard deviation is measured
NOISE_BIN_HU = 0.5
MAX_NOISE_HU = 100.0
EDGE_MM = 4.0  # to either side of an edge, where tissue and air must be
TISSUE_HU, AIR_HU, EDGE_HU = -100, -700, -450
WIDTH_QUANTILE = 0.25  # of the edges; the wider ones are moving or faint
FLAT, STEEP, MAX_STEEP = 0.25, 0.5, 2.0  # mm that an edge shifts per mm along the body
MIN_EDGES = 40
MIN_SLICE_MM = 1.0  # thinner ones look the same
USED_SLICES = 10
THINNED = 2  # every other pixel shows how an edge shifts


class ImageQuality(NamedTuple):
    """Noise and resolution of a scan.

    Attributes:
      noise_hu: standard deviation of the noise in soft tissue.
      blur_mm: standard deviation of the point spread function within a slice.
      slice_mm: thickness of a slice.
    """

    noise_hu: float
    blur_mm: float
    slice_mm: float


class _Edges(NamedTuple):
    """Edges between lung or air and tissue: widths as standard deviations in mm, and their shift per mm of height."""

    width_mm: np.ndarray
    shift: np.ndarray


def measure_image_quality(hu: np.ndarray, spacing_mm: Sequence[float]) -> ImageQuality:
    """Measure noise, sharpness and slice thickness.

    The noise is the most frequent standard deviation of small squares of soft tissue, the global noise level of
    Christianson et al. (AJR 2015). The sharpness is that of the edges of skin and lungs, as in Sanders et al. (Medical
    Physics 2016). A slice of thickness T adds T^2 / 12 times the square of its shift per mm to the variance of an edge
    that shifts from slice to slice, so T follows from edges of different shifts.

    Args:
      hu: (slice, row, column), the part of a scan that holds the lungs.
      spacing_mm: along the same axes.

    Returns:
      The measurements; where the scan has too few edges, the blur of a pixel and slices without gaps between them.
    """
    chosen = np.unique(np.linspace(1, len(hu) - 2, USED_SLICES).astype(int))
    planes = {k: np.clip(hu[k].astype(np.float32), LOWEST_HU, HIGHEST_HU) for i in chosen for k in (i - 1, i, i + 1)}
    noise = _measure_noise([planes[k] for k in chosen])
    edges = [_find_edges(planes[k - 1], planes[k], planes[k + 1], spacing_mm) for k in chosen]
    widths, shifts = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    slice_mm, row_mm, column_mm = map(float, spacing_mm)
    pixel = row_mm * column_mm
    flat, steep = shifts < FLAT, (shifts >= STEEP) & (shifts < MAX_STEEP)
    if flat.sum() < MIN_EDGES:
        return ImageQuality(noise, float(np.sqrt(pixel / 12)), slice_mm)
    sharp = float(np.quantile(widths[flat], WIDTH_QUANTILE)) ** 2
    # Differences over two pixels widen an edge as a box of their width does.
    blur = float(np.sqrt(max(sharp - pixel / 3, pixel / 12)))
    if steep.sum() < MIN_EDGES:
        return ImageQuality(noise, blur, slice_mm)
    slanted = float(np.quantile(widths[steep], WIDTH_QUANTILE)) ** 2
    thickness = np.sqrt(12 * max(slanted - sharp, 0.0) / float(np.median(shifts[steep] ** 2)))
    return ImageQuality(noise, blur, float(np.clip(thickness, min(MIN_SLICE_MM, slice_mm), slice_mm)))


def _measure_noise(planes: Sequence[np.ndarray]) -> float:
    counts = np.zeros(int(MAX_NOISE_HU / NOISE_BIN_HU))
    for plane in planes:
        soft: Any = ndimage.minimum_filter((plane > SOFT_TISSUE_HU[0]) & (plane < SOFT_TISSUE_HU[1]), NOISE_PIXELS)
        mean: Any = ndimage.uniform_filter(plane, NOISE_PIXELS)
        variance = ndimage.uniform_filter(plane * plane, NOISE_PIXELS) - mean * mean
        counts += np.histogram(np.sqrt(np.maximum(variance[soft], 0)), len(counts), (0, MAX_NOISE_HU))[0]
    smooth = ndimage.gaussian_filter1d(counts, 2.0)
    return float((smooth.argmax() + 0.5) * NOISE_BIN_HU) if counts.any() else 0.0


def _find_edges(below: np.ndarray, plane: np.ndarray, above: np.ndarray, spacing_mm: Sequence[float]) -> _Edges:
    """Find the edges of a slice, and how they shift from the slice below to the slice above."""
    slice_mm, row_mm, column_mm = map(float, spacing_mm)
    slope = np.hypot(*np.gradient(plane, row_mm, column_mm))
    reach = [2 * max(1, round(EDGE_MM / step)) + 1 for step in (row_mm, column_mm)]
    high, low = ndimage.maximum_filter(plane, reach), ndimage.minimum_filter(plane, reach)
    steepest = slope == ndimage.maximum_filter(slope, reach)
    edges = np.nonzero(steepest & (high > TISSUE_HU) & (high < HIGHEST_HU) & (low < AIR_HU))
    width = (high - low)[edges] / slope[edges] / np.sqrt(2 * np.pi)
    near = tuple(np.minimum(at // THINNED, (size - 1) // THINNED) for at, size in zip(edges, plane.shape, strict=True))
    distances = [_signed_distance(other, (row_mm, column_mm))[near] for other in (below, above)]
    shift = np.abs(distances[1] - distances[0]) / (2 * slice_mm)
    # An edge between those of its neighbours; others belong to something else.
    is_same = np.abs(distances[0] + distances[1]) < 0.5 * np.abs(distances[1] - distances[0]) + 2
    return _Edges(width[is_same], shift[is_same])


def _signed_distance(plane: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the distance in mm to the border of tissue, positive in it, on every `THINNED`th row and column."""
    step = [THINNED * each for each in spacing_mm]
    tissue = ndimage.uniform_filter(plane, THINNED + 1)[::THINNED, ::THINNED] > EDGE_HU
    inside: Any = ndimage.distance_transform_edt(tissue, sampling=step)
    outside: Any = ndimage.distance_transform_edt(~tissue, sampling=step)
    return inside - outside
