"""Statistics of a scan's appearance, measured in the same way on records and on new studies.

They are measured on the grid, because a network sees nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfds_mosmed.preprocessing.lungs import LungSegmentation, segment_lungs

COARSE_MM = 4.5  # half the time of `lungs.COARSE_MM`; changes no statistic by more than disease does
MEASURED_SLICES = 8  # for noise and air; more make no difference
PADDING_BELOW_HU = -1020  # outside of the field of view, clipped
AIR_PERCENTILE = 0.1  # the windpipe alone is more than that; the rim between padding and air is less
FAT_ABOVE_HU = -200
BLOOD_PERCENTILE = 85  # of what lies between the lungs, including fat: most of it is heart and vessels
SOFT_TISSUE_HU = (-20, 120)  # mean of 3 x 3 pixels: muscle and organs, neither fat nor bone
MIN_PIXELS = 100  # to measure noise
ROUNDING_HU = 12**-0.5  # standard deviation of the error of rounding to integers
MIN_BETWEEN_ML = 30.0
_NOISE_OF_MEDIAN = 0.6745 * 6  # median of the absolute response to noise of standard deviation 1, see `_noise`


class ScanStatistics(NamedTuple):
    """Statistics of a scan; NaN if not measurable. Without lungs only the first five are.

    Attributes:
      slice_gap_mm: distance of the slices in the source.
      pixel_mm: the larger of the distances of rows and of columns in the source.
      grid_gap_mm: distance of the slices on the grid.
      grid_pixel_mm: distance of the columns on the grid.
      air_hu: HU of the darkest voxels except padding.
      blood_hu: HU of heart and vessels between the lungs; 30 to 70 without contrast medium.
      noise_hu: standard deviation of the noise in soft tissue on the grid; depends on dose and kernel.
      lung_hu: median HU of aerated lung.
      lung_litres: volume of aerated lung.
      end_share: area of lung in the first or last slice, the larger, divided by the largest area of all slices.
    """

    slice_gap_mm: float
    pixel_mm: float
    grid_gap_mm: float
    grid_pixel_mm: float
    air_hu: float
    blood_hu: float = math.nan
    noise_hu: float = math.nan
    lung_hu: float = math.nan
    lung_litres: float = math.nan
    end_share: float = math.nan


def scan_statistics(
    volume: np.ndarray, spacing_mm: Sequence[float], source_spacing_mm: Sequence[float]
) -> ScanStatistics:
    """Measure the statistics of a study.

    Args:
      volume: int16 HU on the grid, (slice, row, column).
      spacing_mm: of the grid, along the same axes.
      source_spacing_mm: of the original study, along the same axes.
    """
    slices = volume[:: max(1, len(volume) // MEASURED_SLICES)]
    without_lungs = ScanStatistics(
        slice_gap_mm=float(source_spacing_mm[0]),
        pixel_mm=float(max(source_spacing_mm[1:])),
        grid_gap_mm=float(spacing_mm[0]),
        grid_pixel_mm=float(spacing_mm[2]),
        air_hu=_air(slices),
    )
    chest = segment_lungs(volume, spacing_mm, COARSE_MM, cropped=True)
    if chest.mask is None:
        return without_lungs
    areas = chest.mask.sum(axis=(1, 2))
    return without_lungs._replace(
        blood_hu=_blood(chest, chest.mask),
        noise_hu=_noise(slices),
        lung_hu=float(np.median(chest.hu[chest.mask])),
        lung_litres=float(areas.sum() * chest.spacing_mm.prod() / 1e6),
        end_share=float(max(areas[0], areas[-1]) / areas.max()),
    )


def _air(slices: np.ndarray) -> float:
    values = slices[slices > PADDING_BELOW_HU]
    return float(np.percentile(values, AIR_PERCENTILE)) if values.size else float(slices.max())


def _blood(chest: LungSegmentation, lungs: np.ndarray) -> float:
    """Measure the HU of the densest tissue between the lungs, in front of their middle, where there is no spine."""
    rows = lungs.sum(axis=(0, 2))
    front = lungs[:, : int(np.average(np.arange(len(rows)), weights=rows)) + 1]
    right, left = np.logical_or.accumulate(front, 2), np.logical_or.accumulate(front[:, :, ::-1], 2)[:, :, ::-1]
    values = chest.hu[:, : front.shape[1]][right & left & ~front]
    values = values[values > FAT_ABOVE_HU]
    enough = len(values) * chest.spacing_mm.prod() / 1e3 >= MIN_BETWEEN_ML
    return float(np.percentile(values, BLOOD_PERCENTILE)) if enough else math.nan


def _noise(slices: np.ndarray) -> float:
    """Estimate the noise in soft tissue by the difference of two Laplacians (Immerkaer, CVIU 1996), 0 on slopes."""
    values = slices.astype(np.int32)
    means, response = values, values
    for axis in (1, 2):
        means = _sum_of_three(means, axis, 1)
        response = _sum_of_three(response, axis, -2)
    tissue = (means > 9 * SOFT_TISSUE_HU[0]) & (means < 9 * SOFT_TISSUE_HU[1])
    # The median ignores the edges of organs and vessels.
    found = np.abs(response[tissue])
    return max(float(np.median(found) / _NOISE_OF_MEDIAN), ROUNDING_HU) if len(found) >= MIN_PIXELS else math.nan


def _sum_of_three(values: np.ndarray, axis: int, middle: int) -> np.ndarray:
    """Sum the two neighbours of each pixel along an axis and `middle` times the pixel itself."""
    along = np.moveaxis(values, axis, 0)
    return np.moveaxis(along[:-2] + middle * along[1:-1] + along[2:], 0, axis)
