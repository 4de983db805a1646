"""A perceptual hash of chest CT to find copies of a study: distances of copies are small, those of other studies large.

After pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): low frequencies of the
discrete cosine transform, each compared with a median. In contrast to pHash, volumes are three-dimensional, they are
aligned by their lungs, and the medians are those of reference studies, so that what all chests share does not count.
"""

import base64
import functools
from importlib import resources

import numpy as np
import scipy.fft

from tfds_mosmed.preprocessing.resize import resize_to_spacing

# Share of different bits. Measured:
# - Copies of 20 phantoms and 3 real studies. At most 0.05: moved by 5 pixels, noise of 40 HU, 0.8 to 1.25 in the
#   slice, 20 HU more or less, 8 bits. At most 0.08: flipped, turned by half, a wider field of view, two slices cut off.
#   At most 0.12: 0.8 to 1.25 along all axes, slices 5 mm apart. Up to 0.17, half of them below 0.11: every second
#   slice, a wrong pixel size in the header. Missed: lungs cut off by the field of view, rotations above 3 degrees.
# - The 19,900 pairs of ct_phantom/demo: mean 0.458, standard deviation 0.041, smallest 0.235 (0.237 with the reference
#   from the other half). By generalised Pareto distributions fitted to the nearest 1, 2 and 5 %, the probability that
#   two phantoms are nearer than 0.15 is 2e-9 to 8e-7; by exponential ones 1e-6 to 9e-6. MosMedData has 616,000 pairs.
# - 5 real studies: 0.34 to 0.42 from each other, 0.35 or more from all phantoms.
# - The 615,495 pairs of ct_phantom/hard_128x128x32, which are alike in other ways than the demo's: mean 0.394, smallest
#   0.144; with their own medians mean 0.457, standard deviation 0.046, smallest 0.182. Copies of 13 of them (moved,
#   noise of 40 HU, flipped, 0.8 in the slice or along all axes, 20 HU more, four slices cut off, every second slice):
#   at most 0.14 with either.
# - The 2,878,800 pairs of ct_phantom/varied_128x128x32, of which one in five is an expiratory scan with haze behind and
#   few vessels to see, with their own medians: mean 0.455, smallest 0.164, 0.167, 0.169; of a trial with more uneven
#   haze 0.136, 0.165, 0.167.
MAX_DISTANCE = 0.15
# Of two studies within that distance, the least correlation of the coefficients less the medians: signs alone are alike
# where a smooth density is all that two lungs show. Copies of 4 phantoms and 3 real studies, those above and 6 of each
# with all changes at once: 0.947 to 1; the nearest pairs of that trial: 0.903, 0.877, 0.854.
MIN_CORRELATION = 0.92
MIN_FOR_MEDIANS = 100  # studies; the medians of fewer depend on each of them

COARSE_MM = 6.0  # a fifth of the shortest wave in the slice
COARSE_HU = (-1024, 200)
LUNG_HU = (-1000, -500)  # two chests differ in their lungs; the rest is clipped
AERATED_HU = (-700, -300)  # from certainly lung to certainly tissue
WALL_MM = (3.0, 18.0)  # of tissue on all four sides in the slice: from outside of the body to certainly inside
MIN_AERATED_LITRES = 0.2
CANONICAL = (16, 48, 48)  # (slice, row, column)
REACH_SD = 2.1  # half the canonical grid's extent, in standard deviations of the aerated voxels' positions
SLICE_FREQUENCIES = 8
PLANE_FREQUENCIES = (4, 12)  # radius; lower ones are alike in all chests, higher ones change with a small shift
ROWS_AT_ONCE = 1024  # of the matrix of distances, to limit memory


def signature(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Compute the signature of a study.

    Position and size of the lungs are normalised along each axis: a shifted, cropped or resampled copy has nearly the
    same signature, whatever spacing its header has.

    Args:
      hu: (slice, row, column) HU, a whole study or a record.
      spacing_mm: along the same axes.

    Returns:
      (frequency,) int8: signed square roots of the coefficients, relative to their root mean square, times 32.
    """
    coarse, coarse_mm = resize_to_spacing(hu, spacing_mm, COARSE_MM, *COARSE_HU)
    inside = np.clip(coarse, *LUNG_HU)
    for axis, (centre, sd) in enumerate(_locate_lungs(coarse, coarse_mm)):
        basis = _cosines(CANONICAL[axis], _frequencies()[axis].max() + 1) @ _sampling(
            coarse.shape[axis], centre, sd, CANONICAL[axis]
        )
        inside = np.moveaxis(np.tensordot(basis, inside, (1, axis)), 0, axis)
    coefficients = inside[tuple(_frequencies())]
    scale = np.sqrt(np.mean(np.square(coefficients)))
    relative = coefficients / scale if scale > 0 else coefficients
    return np.rint(np.clip(32 * np.sign(relative) * np.sqrt(np.abs(relative)), -127, 127)).astype(np.int8)


def distances(some: np.ndarray, others: np.ndarray, medians: np.ndarray | None = None) -> np.ndarray:
    """Compute the distances of all pairs of signatures, the second in all eight orientations.

    Args:
      some: (a, frequency) int8.
      others: (b, frequency) int8.
      medians: (frequency,) with which they are compared; None: those of ct_phantom/demo.

    Returns:
      (a, b) float32, the smallest share of different bits: 0 for identical studies, about 0.5 for unrelated ones.
    """
    medians = _reference() if medians is None else medians
    bits = _bits(some, medians)
    similarity = np.full((len(some), len(others)), -np.inf, np.float32)
    for parity in _parities():
        np.maximum(similarity, bits @ _bits(others * parity, medians).T, out=similarity)
    return (1 - similarity / bits.shape[1]) / 2


def near_duplicates(some: np.ndarray, others: np.ndarray) -> list[tuple[int, int, float]]:
    """Find studies that are nearly the same.

    Where there are enough studies, the medians are their own: what they have in common, as those of one scanner do,
    does not make two of them copies.

    Args:
      some: (a, frequency) int8.
      others: (b, frequency) int8.

    Returns:
      (index in `some`, index in `others`, distance), the nearest first: those whose coefficients are correlated, too.
    """
    both = np.concatenate([some, others])
    medians = np.median(both, axis=0) if len(both) >= MIN_FOR_MEDIANS else None
    found = []
    for first in range(0, len(some), ROWS_AT_ONCE):
        far = distances(some[first : first + ROWS_AT_ONCE], others, medians)
        found += [
            (first + int(a), int(b), float(far[a, b]))
            for a, b in np.argwhere(far <= MAX_DISTANCE)
            if _correlation(some[first + a], others[b], medians) >= MIN_CORRELATION
        ]
    return sorted(found, key=lambda pair: pair[2])


def _correlation(one: np.ndarray, other: np.ndarray, medians: np.ndarray | None) -> float:
    """Compute the correlation of two signatures about the medians, in the second's orientation where it is highest."""
    middle = np.float32(_reference() if medians is None else medians)
    first, seconds = one - middle, _parities() * other - middle
    norms = np.linalg.norm(first) * np.linalg.norm(seconds, axis=1)
    return float(np.max(seconds @ first / np.maximum(norms, 1e-9)))


def to_text(of_study: np.ndarray) -> str:
    """Encode a signature as text."""
    return base64.b64encode(of_study.tobytes()).decode()


def from_texts(texts: list[str]) -> np.ndarray:
    """Decode signatures that `to_text` encoded: (study, frequency) int8."""
    return np.frombuffer(b"".join(map(base64.b64decode, texts)), np.int8).reshape(-1, _frequencies().shape[1])


def _locate_lungs(coarse: np.ndarray, coarse_mm: np.ndarray) -> list[tuple[float, float]]:
    """Compute mean and standard deviation of the positions of aerated voxels in the body, in voxels along each axis.

    Weights, not the mask of `lungs.segment_lungs`: a little noise or another resolution changes them only a little.
    Without lungs the whole field of view counts.
    """
    weights = np.clip((AERATED_HU[1] - coarse) / (AERATED_HU[1] - AERATED_HU[0]), 0, 1)
    tissue = np.clip((coarse - AERATED_HU[1]) / -AERATED_HU[1], 0, 1)
    for axis in (1, 2):
        before = np.cumsum(tissue, axis=axis) * np.float32(coarse_mm[axis])
        behind = before.take([-1], axis=axis) - before
        # Tissue at the edge of a cropped field of view continues beyond it.
        first, last = (tissue.take([end], axis=axis) * WALL_MM[1] for end in (0, -1))
        wall = np.minimum(before + first, behind + last)
        weights *= np.clip((wall - WALL_MM[0]) / (WALL_MM[1] - WALL_MM[0]), 0, 1)
    if weights.sum() * coarse_mm.prod() < MIN_AERATED_LITRES * 1e6:
        weights = np.ones_like(coarse)
    along_axes = []
    for axis in range(3):
        profile = weights.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64)
        positions = np.arange(len(profile)) + 0.5
        centre = np.average(positions, weights=profile)
        along_axes.append((centre, max(0.5, np.sqrt(np.average((positions - centre) ** 2, weights=profile)))))
    return along_axes


def _sampling(size: int, centre: float, sd: float, new_size: int) -> np.ndarray:
    """Compute the weights (new_size, size) that resample an axis to the canonical grid, the edge repeated outside."""
    step = 2 * REACH_SD * sd / new_size
    centres = np.clip(centre + (np.arange(new_size) + 0.5 - new_size / 2) * step, 0.5, size - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(1.0, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def _cosines(size: int, count: int) -> np.ndarray:
    """Compute the first rows (count, size) of the cosine transform, times a window that falls to 0 at the edges."""
    window = np.cos(np.pi * ((np.arange(size) + 0.5) / size - 0.5))
    return np.asarray(scipy.fft.dct(np.eye(size), axis=0, norm="ortho")[:count] * window, np.float32)


@functools.cache
def _frequencies() -> np.ndarray:
    """Return (axis, frequency), the indices of the coefficients that are used."""
    low, high = PLANE_FREQUENCIES
    along = np.indices((SLICE_FREQUENCIES, high, high)).reshape(3, -1)
    radius = np.hypot(along[1], along[2])
    return along[:, (radius >= low) & (radius < high)]


@functools.cache
def _parities() -> np.ndarray:
    """Return (orientation, frequency) int8: a flip changes the sign of the odd frequencies along its axis."""
    flips = np.indices((2, 2, 2)).reshape(3, -1).T
    return (1 - 2 * (flips @ _frequencies() % 2)).astype(np.int8)


def _bits(signatures: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """Return (study, frequency) float32, 1 or -1: above or below the medians."""
    return np.where(signatures >= medians, np.float32(1), np.float32(-1))


@functools.cache
def _reference() -> np.ndarray:
    """Load the medians (frequency,) of the signatures of the 200 phantoms of ct_phantom/demo."""
    text = resources.files("tfds_mosmed.preprocessing").joinpath("signature_reference.csv").read_text()
    return np.array(text.split(), np.int8)
