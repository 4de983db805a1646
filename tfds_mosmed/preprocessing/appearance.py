"""How a study looks to a network: a few numbers, measured alike on a record and on a new study.

They are measured on the grid, since what does not show there does not reach a network.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfds_mosmed.preprocessing.lungs import LungSegmentation, segment_lungs

COARSE_MM = 4.5  # half the time of what `lungs` takes to find outlines; no number moves by more than disease moves it
MEASURED_SLICES = 8  # of which noise and air are measured; more tell no more
PADDING_BELOW_HU = -1020  # what lies outside of the field of view, clipped; it says nothing of the scanner
AIR_PERCENTILE = 0.1  # the windpipe alone is more; the rim between padding and air is less
FAT_ABOVE_HU = -200
BLOOD_PERCENTILE = 85  # of what lies between the lungs, fat among it: heart and vessels are more than the rest
SOFT_TISSUE_HU = (-20, 120)  # mean of 3 x 3 pixels: muscle and organs, neither fat nor bone
MIN_PIXELS = 100  # to measure noise on
ROUNDING_HU = 12**-0.5  # noise of whole numbers
MIN_BETWEEN_ML = 30.0
_NOISE_OF_MEDIAN = 0.6745 * 6  # median of the absolute response to noise of standard deviation 1, see `_noise`


class ScanStatistics(NamedTuple):
    """How a study looks. NaN is what cannot be measured: all but the first three where no lungs are found.

    Attributes:
      slice_gap_mm: distance of the slices in the source.
      pixel_mm: of the source, the larger of rows' and columns' distance.
      air_hu: of the darkest in the volume that is no padding.
      blood_hu: of heart and vessels between the lungs. 30 to 70 without contrast medium.
      noise_hu: standard deviation of noise in soft tissue, on the grid: dose and kernel.
      lung_hu: median of what is aerated.
      lung_litres: of what is aerated.
      end_share: lung in the volume's first or last slice, as a share of the slice that has most.
    """

    slice_gap_mm: float
    pixel_mm: float
    air_hu: float
    blood_hu: float = math.nan
    noise_hu: float = math.nan
    lung_hu: float = math.nan
    lung_litres: float = math.nan
    end_share: float = math.nan


def scan_statistics(
    volume: np.ndarray, spacing_mm: Sequence[float], source_spacing_mm: Sequence[float]
) -> ScanStatistics:
    """Measure how a study looks.

    Args:
      volume: int16 HU on the grid, (slice, row, column).
      spacing_mm: of the grid, along the same axes.
      source_spacing_mm: of the study as it was scanned, along the same axes.
    """
    few = volume[:: max(1, len(volume) // MEASURED_SLICES)]
    scanned = ScanStatistics(
        slice_gap_mm=float(source_spacing_mm[0]),
        pixel_mm=float(max(source_spacing_mm[1:])),
        air_hu=_air(few),
    )
    chest = segment_lungs(volume, spacing_mm, COARSE_MM, cropped=True)
    if chest.mask is None:
        return scanned
    areas = chest.mask.sum(axis=(1, 2))
    return scanned._replace(
        blood_hu=_blood(chest, chest.mask),
        noise_hu=_noise(few),
        lung_hu=float(np.median(chest.hu[chest.mask])),
        lung_litres=float(areas.sum() * chest.spacing_mm.prod() / 1e6),
        end_share=float(max(areas[0], areas[-1]) / areas.max()),
    )


def _air(slices: np.ndarray) -> float:
    values = slices[slices > PADDING_BELOW_HU]
    return float(np.percentile(values, AIR_PERCENTILE)) if values.size else float(slices.max())


def _blood(chest: LungSegmentation, lungs: np.ndarray) -> float:
    """HU of the densest between the lungs, in front of their middle, where there is no spine."""
    rows = lungs.sum(axis=(0, 2))
    front = lungs[:, : int(np.average(np.arange(len(rows)), weights=rows)) + 1]
    right, left = np.logical_or.accumulate(front, 2), np.logical_or.accumulate(front[:, :, ::-1], 2)[:, :, ::-1]
    values = chest.hu[:, : front.shape[1]][right & left & ~front]
    values = values[values > FAT_ABOVE_HU]
    enough = len(values) * chest.spacing_mm.prod() / 1e3 >= MIN_BETWEEN_ML
    return float(np.percentile(values, BLOOD_PERCENTILE)) if enough else math.nan


def _noise(slices: np.ndarray) -> float:
    """Noise in soft tissue from the difference of two Laplacians (Immerkaer, CVIU 1996), which slopes do not move."""
    values = slices.astype(np.int32)
    means, response = values, values
    for axis in (1, 2):
        means = _triples(means, axis, 1)
        response = _triples(response, axis, -2)
    tissue = (means > 9 * SOFT_TISSUE_HU[0]) & (means < 9 * SOFT_TISSUE_HU[1])
    # The median leaves out the edges of organs and vessels.
    found = np.abs(response[tissue])
    return max(float(np.median(found) / _NOISE_OF_MEDIAN), ROUNDING_HU) if len(found) >= MIN_PIXELS else math.nan


def _triples(values: np.ndarray, axis: int, middle: int) -> np.ndarray:
    """Sum of each pixel's two neighbours along an axis and `middle` times the pixel itself."""
    along = np.moveaxis(values, axis, 0)
    return np.moveaxis(along[:-2] + middle * along[1:-1] + along[2:], 0, axis)
