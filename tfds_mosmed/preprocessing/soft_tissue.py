"""A look at fat and muscle, whose HU are known: whether slope and intercept of a study's rescale are right.

Air does not tell of a wrong slope: the stored value of air is 0 in most scans, so that it is at the intercept.
"""

import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.lungs import TISSUE_ABOVE_HU, LungSegmentation

# HU of the peaks of the histogram of soft tissue. In 9 real studies and 80 phantoms fat is at -117 to -87, muscle at 32
# to 82, the higher ones with contrast agent; other peaks, of enhanced organs and fluid, lie above fat. A slope that is
# wrong by 5 %, or an intercept by 40 HU, moves the peak of fat out of its range in eight of ten real studies, by 7 % or
# 60 HU in all.
FAT_HU = (-135, -72)
# Without fat, as in thin patients, fluid may be the lowest.
FLUID_HU, MUSCLE_HU = -20, (15, 80)
# A slope of 1.2 puts fat where muscle belongs, and then muscle above that.
MUSCLE_BELOW_HU, MIN_HIGH_PEAK = 200, 0.25
RANGE_HU = 300
BIN_HU = 5
SMOOTHED_BINS = 2.0
MIN_PEAK = 0.1  # of the highest
MAX_STEP_HU = 80.0  # among 2 x 2 pixels of one tissue
MIN_BLOCKS = 2000  # of tissue, to tell anything
MIN_SHARE = 0.02  # of them with one soft tissue; normally 0.2 and more


def check_soft_tissue(chest: LungSegmentation) -> str | None:
    """Describe HU of fat and muscle that no scanner gives them.

    Args:
      chest: the coarse copy of a whole scan; whether it has lungs does not matter.

    Returns:
      A line, or None if they are usual or if there is too little even tissue to tell.
    """
    rows, columns = (size // 2 * 2 for size in chest.hu.shape[1:])
    blocks = np.stack([chest.hu[:, row:rows:2, column:columns:2] for row in (0, 1) for column in (0, 1)])
    mean = blocks.mean(axis=0)
    is_soft = (np.ptp(blocks, axis=0) < MAX_STEP_HU) & (np.abs(mean) < RANGE_HU)
    num_blocks = np.count_nonzero(mean > TISSUE_ABOVE_HU)
    if num_blocks < MIN_BLOCKS:
        return None
    values = mean[is_soft]
    peaks = _find_peaks(values) if len(values) > MIN_SHARE * num_blocks else {}
    if peaks and _is_usual(peaks):
        return None
    seen = f"at {' and '.join(f'{hu:.0f}' for hu in peaks)} HU most often" if peaks else f"hardly within {RANGE_HU} HU"
    return f"soft tissue is {seen}, where fat is near -100 and muscle near 50: check the rescale slope and intercept"


def _is_usual(peaks: dict[float, float]) -> bool:
    lowest, highest = min(peaks), max(peaks)
    if FAT_HU[0] <= lowest <= FAT_HU[1]:
        return True
    is_thin = lowest >= FLUID_HU and any(MUSCLE_HU[0] <= hu <= MUSCLE_HU[1] for hu in peaks)
    return is_thin and lowest <= MUSCLE_HU[1] and (highest < MUSCLE_BELOW_HU or peaks[highest] < MIN_HIGH_PEAK)


def _find_peaks(values: np.ndarray) -> dict[float, float]:
    """Return the peaks of the histogram of soft tissue: HU -> height as a share of the highest, in rising HU."""
    counts, edges = np.histogram(values, np.arange(-RANGE_HU, RANGE_HU + BIN_HU, BIN_HU))
    heights = ndimage.gaussian_filter1d(counts.astype(float), SMOOTHED_BINS)
    heights /= heights.max()
    inner = heights[1:-1]
    at = 1 + np.flatnonzero((inner >= heights[:-2]) & (inner > heights[2:]) & (inner > MIN_PEAK))
    return {float(edges[index] + BIN_HU / 2): float(heights[index]) for index in at}
