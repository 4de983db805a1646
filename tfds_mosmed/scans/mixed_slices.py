"""Detection of slices that do not belong together: of two scans mixed slice by slice, of places where slices jump,
and of rows that do not.

They are mixed where the headers under one SeriesInstanceUID do not part them. In such a volume every other slice
differs from both of its neighbours in the same way, by contrast agent, kernel or dose, or resembles the slice after the
next more than the next one, as breaths and patients differ.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import fft

MIN_SLICES = 18  # fewer may alternate by chance
PIXELS = 64  # along each axis of a slice, about; more only cost time
TISSUE_HU = (-150, 400)
MIN_PIXELS = 50  # of tissue
MIN_SAME_SIGN = 0.85  # of the slices; by chance it is half
MIN_HU = 3.0
# Of the logarithm of noise. A slice that was interpolated halfway between its neighbours has log(1 / sqrt(2)) = -0.35.
MIN_NOISE = 0.45
MAX_DISTANCE = 0.92  # to the slice after the next, as a share of that to the next; above 1 in one scan
NEIGHBOURS = 4  # distances between slices to either side of one
MAX_JUMP = 2.5  # of a distance to the second largest of its neighbours; below 2 in one scan
BODY_HU = (-1000.0, 200.0)
# Distances of a slice to both neighbours, by theirs to each other; in order at most 1.7 in real studies.
MIN_OUT_OF_PLACE = 1.8
MAX_OUT_OF_PLACE = 12  # slices that are tried
# Sum of distances before two slices are exchanged, by that after: at most 1.01 in 129 scans in order, also with noise,
# streaks or blank slices. Above 1.1 in all real studies with two slices exchanged.
MIN_EXCHANGE_GAIN = 1.1
MAX_DIFFERENCE_HU = 400.0  # edges must not hide everything else
COMPARED_MM = 4.0  # between slices that are compared for a translation, at least
LINES = 16
TRANSLATED_HU = (-1000, 200)
ROUNDING_HU, ROUNDED_HU = 5.0, 2.0  # so that images without noise may differ, and be equal
# Logarithm of how much better a slice fits when it is moved, beyond twice that of its neighbours: the tilt of a patient
# moves them evenly. In one scan at most 0.02 sideways; from front to back 0.13, and at the shoulders anything.
MIN_GAIN_SIDEWAYS, MIN_GAIN_ALONG_ROWS = 0.08, 0.2
NEAR = 3  # gains to either side of one
SHEARED_SLICES = 2  # that are examined
MIN_SHEARED = 0.3  # of the rows; the others may be air
FEWEST_ROWS = 20  # of which as many are not moved alike by chance


class _Differences(NamedTuple):
    """Differences of a slice from its two neighbours, in tissue that all three have; NaN without tissue."""

    hu: float
    noise: float
    distance: float


def find_mixed_slices(hu: np.ndarray) -> str | None:
    """Return in what every other slice of a volume (slice, row, column) differs, or None if it is one scan."""
    if len(hu) < MIN_SLICES:
        return None
    row_step, column_step = (max(1, size // PIXELS) for size in hu.shape[1:])
    sample = hu[:, ::row_step, ::column_step].astype(np.float32)
    noise = _noise(hu[:, :: 8 * row_step])
    is_tissue = (sample > TISSUE_HU[0]) & (sample < TISSUE_HU[1])
    of_three = is_tissue[:-2] & is_tissue[1:-1] & is_tissue[2:]
    differences = [
        _compare(sample[index : index + 3, mask], noise[index : index + 3]) for index, mask in enumerate(of_three)
    ]
    of_tissue, of_noise, distances = np.array(differences).T
    if _alternates(of_tissue, MIN_HU):
        return "HU"
    if _repeats_by_threes(of_tissue):
        return "HU, by threes,"
    if _alternates(of_noise, MIN_NOISE):
        return "noise"
    odd_and_even = (part[np.isfinite(part)] for part in (distances[::2], distances[1::2]))
    resembles = any(len(part) * 2 >= MIN_SLICES - 2 and np.median(part) < MAX_DISTANCE for part in odd_and_even)
    return "anatomy" if resembles else None


def _noise(rows: np.ndarray) -> np.ndarray:
    """Estimate the noise of each slice by the curvature along some of its rows: (slice,), NaN without tissue."""
    left, middle, right = (rows[:, :, start : rows.shape[2] - 2 + start].astype(np.float32) for start in range(3))
    is_tissue = (middle > TISSUE_HU[0]) & (middle < TISSUE_HU[1])
    curvature = np.abs(left - 2 * middle + right)
    return np.array(
        [
            np.median(one[mask]) if np.count_nonzero(mask) >= MIN_PIXELS else np.nan
            for one, mask in zip(curvature, is_tissue, strict=True)
        ]
    )


def _compare(tissue: np.ndarray, noise: np.ndarray) -> _Differences:
    """Compare three slices by the pixels that are tissue in all of them, (slice, pixel), and by their noise."""
    if tissue.shape[1] < MIN_PIXELS:
        return _Differences(np.nan, np.nan, np.nan)
    before, middle, after = tissue
    rounding = 1.0  # HU, so that images without noise do not differ
    to_last, to_next, to_after_next = (
        float(np.sqrt(np.mean(np.square(np.clip(one - other, -MAX_DIFFERENCE_HU, MAX_DIFFERENCE_HU)))))
        for one, other in ((before, middle), (middle, after), (before, after))
    )
    last, own, following = np.log(noise + rounding)
    return _Differences(
        hu=float((middle - (before + after) / 2).mean()),
        noise=float(own - (last + following) / 2),
        distance=(to_after_next + rounding) / ((to_last + to_next) / 2 + rounding),
    )


def _alternates(differences: np.ndarray, least: float) -> bool:
    """Return whether every other slice is higher than both of its neighbours."""
    signs = np.where(np.arange(len(differences)) % 2, 1, -1)
    alternating = (differences * signs)[np.isfinite(differences)]
    if len(alternating) < MIN_SLICES - 2:
        return False
    typical = np.median(alternating)
    return bool(abs(typical) >= least and (np.sign(alternating) == np.sign(typical)).mean() >= MIN_SAME_SIGN)


def _repeats_by_threes(of_tissue: np.ndarray) -> bool:
    """Return whether every third slice is higher than its neighbours, and another third lower."""
    parts = [part[np.isfinite(part)] for part in (of_tissue[start::3] for start in range(3))]
    if min(map(len, parts)) * 3 < MIN_SLICES:
        return False
    typical = [float(np.median(part)) for part in parts]
    is_even = [
        (np.sign(part) == np.sign(one)).mean() >= MIN_SAME_SIGN for part, one in zip(parts, typical, strict=True)
    ]
    return any(
        is_even[high] and is_even[low] and typical[high] >= MIN_HU and typical[low] <= -MIN_HU
        for high in range(3)
        for low in range(3)
    )


def count_jumps(hu: np.ndarray) -> int:
    """Count the places between two slices of a volume (slice, row, column) where they differ as if one did not belong.

    So it is where a second scan begins, and on both sides of a slice of another scan or place.
    """
    distances = _distances(sample_body(hu), 1)
    jumps = 0
    for index in range(NEIGHBOURS, len(distances) - NEIGHBOURS):
        near = np.delete(distances[index - NEIGHBOURS : index + NEIGHBOURS + 1], NEIGHBOURS)
        jumps += bool(distances[index] > MAX_JUMP * np.sort(near)[-2])
    return jumps


def find_exchanged_slices(hu: np.ndarray) -> tuple[int, int] | None:
    """Find two slices of a volume (slice, row, column) that fit their neighbours better in each other's place."""
    sample = sample_body(hu)
    to_next, to_after_next = _distances(sample, 1), _distances(sample, 2)
    out_of_place = (to_next[:-1] + to_next[1:]) / to_after_next
    tried = np.argsort(-out_of_place, kind="stable")[:MAX_OUT_OF_PLACE]
    pairs = itertools.combinations(sorted((tried[out_of_place[tried] > MIN_OUT_OF_PLACE] + 1).tolist()), 2)
    gains = {pair: _exchange_gain(sample, *pair) for pair in pairs}
    best = max(gains, key=lambda pair: gains[pair], default=None)
    return best if best and gains[best] > MIN_EXCHANGE_GAIN else None


def _exchange_gain(sample: np.ndarray, first: int, second: int) -> float:
    order = np.arange(len(sample))
    order[[first, second]] = second, first
    at = np.unique([first - 1, first, second - 1, second])
    before, after = (
        np.abs(sample[places[at]] - sample[places[at + 1]]).mean(axis=(1, 2)) + ROUNDED_HU
        for places in (np.arange(len(sample)), order)
    )
    return float(before.sum() / after.sum())


def sample_body(hu: np.ndarray) -> np.ndarray:
    """Return every few pixels of a volume (slice, row, column), clipped; of such a sample, the same."""
    row_step, column_step = (max(1, size // PIXELS) for size in hu.shape[1:])
    return hu[:, ::row_step, ::column_step].astype(np.float32).clip(*BODY_HU)


def _distances(sample: np.ndarray, step: int) -> np.ndarray:
    """Compute the mean differences of slices that are `step` apart: (slice - step,) HU."""
    return np.abs(sample[step:] - sample[:-step]).mean(axis=(1, 2)) + ROUNDED_HU


class Translation(NamedTuple):
    """Place from which on slices are moved against those below.

    Attributes:
      slice: index of the first one.
      direction: the side to which they are moved.
      pixels: by how many.
    """

    slice: int
    direction: str
    pixels: int


def find_translation(hu: np.ndarray, slice_mm: float) -> Translation | None:
    """Find the place where slices are moved most, as after bytes that were inserted or lost, or a patient who moved.

    Args:
      hu: (slice, row, column).
      slice_mm: distance of the slices.
    """
    step = max(1, round(COMPARED_MM / slice_mm))
    sample = hu[::step]
    found = []
    for slices, directions, least, num_ends in (
        (sample, ("right", "left"), MIN_GAIN_SIDEWAYS, 0),
        (sample.transpose(0, 2, 1), ("front", "back"), MIN_GAIN_ALONG_ROWS, NEAR),
    ):
        gains, pixels = _translate(slices[:, :: max(1, slices.shape[1] // LINES)])
        if len(gains) <= NEAR:  # too few to tell what is usual
            continue
        for index in range(num_ends, len(gains) - num_ends):
            first = max(0, index - NEAR)
            near = np.delete(gains[first : index + NEAR + 1], index - first)
            excess = (gains[index] - 2 * np.sort(near)[-2]) / least
            if excess > 1:
                moved = int(pixels[index])
                found.append((excess, Translation((index + 1) * step, directions[moved > 0], abs(moved))))
    return max(found)[1] if found else None


def find_shear(hu: np.ndarray) -> int:
    """Find by how many pixels most rows of a volume (slice, row, column) are moved against the row before.

    The middle third of the rows tells it: a body is there.

    Returns:
      0 in every image of a body; another number where rows have not as many pixels as their header says.
    """
    margin, margin_rows = len(hu) // 4, hu.shape[1] // 3
    sample = hu[margin : len(hu) - margin : max(1, len(hu) // (2 * SHEARED_SLICES)), margin_rows:-margin_rows]
    _, pixels = _translate(sample.transpose(1, 0, 2))
    if len(pixels) < FEWEST_ROWS:
        return 0
    values, counts = np.unique(pixels, return_counts=True)
    return int(values[counts.argmax()]) if counts.max() > MIN_SHEARED * len(pixels) else 0


def _translate(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move each slice (slice, line, pixel) along its lines, around their ends, to where it fits the one before best.

    Returns:
      (slice - 1,) the logarithm of the squared difference in place divided by the least; and the pixels of the latter.
    """
    size = slices.shape[2]
    values = slices.clip(*TRANSLATED_HU).astype(np.float32) - np.float32(np.mean(TRANSLATED_HU))
    spectra, energy = np.asarray(fft.rfft(values, axis=2)), np.einsum("zyx,zyx->z", values, values)
    correlation = np.asarray(fft.irfft(np.einsum("zyf,zyf->zf", spectra[:-1].conj(), spectra[1:]), size, axis=1))
    differences = (energy[:-1] + energy[1:])[:, None] - 2 * correlation
    differences = differences.clip(0) + ROUNDING_HU**2 * values[0].size
    best = differences.argmin(axis=1)
    return np.log(differences[:, 0] / differences.min(axis=1)), np.where(best > size // 2, best - size, best)
