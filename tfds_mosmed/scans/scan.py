"""CT volumes in standard axes, and the checks that every file format shares."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.acquisition import UNKNOWN, Acquisition
from tfds_mosmed.scans.mixed_slices import (
    count_jumps,
    find_exchanged_slices,
    find_mixed_slices,
    find_shear,
    find_translation,
    sample_body,
)
from tfds_mosmed.scans.wrapped_values import describe_wrapped_values

MIN_SLICES = 8
MIN_IN_PLANE = 16
MAX_BYTES = 2**30  # of a volume as stored; 512 x 512 x 2000 slices of int16
MIN_STEP_MM, MAX_STEP_MM = 0.05, 100.0  # between voxels
MAX_LENGTH_MM = 500.0  # of a chest CT; with abdomen and pelvis it is longer
MIN_LENGTH_MM = 40.0
WIDTH_MM = (100.0, 850.0)  # of a field of view; scanners have bores of 700 to 850 mm
OBLIQUE_DEGREES = 5.0
PADDING_BELOW_HU = -1100
# Of the voxels that are not padding:
MIN_AIR_SHARE = 0.005  # -1100 to -500 HU
MIN_TISSUE_SHARE = 0.02  # -200 to 300 HU
MAX_DENSE_SHARE = 0.15  # above 600 HU: bone is a few percent
MAX_PADDING_VALUES = 3
AIR_HU = (-1050, -970)  # of the most frequent value of air, and of the darkest voxels, which the windpipe has at least
MIN_DARK_SHARE = 0.001
MAX_BELOW_AIR_SHARE = 0.12  # of all voxels, below -1100 HU and not padding; noise of sharp kernels is less
LOWEST_TISSUE_HU = -500
MAX_BLANK_SHARE = 0.3  # of rows or columns; some scans are padded to a square
MAX_8_BIT = 256  # values
MIN_HIGHEST_HU = 1000  # of a scan with dense bone
MAX_HIGHEST_SHARE = 0.005  # of the voxels, at the highest value
LEFT_JUSTIFIED_STEP, LEFT_JUSTIFIED_RANGE = 16, 10_000  # 12 bits in the highest of 16
NUM_SAMPLED = 300_000
STANDARD_AXES = ("L", "P", "S")  # the direction in which each index of (column, row, slice) grows
_LPS = nib.orientations.axcodes2ornt(STANDARD_AXES)


class ScanError(UserError):
    """A study that cannot be used; the message names the file and the remedy."""

    def of(self, name: str) -> "ScanError":
        """Return the same error with the name of the file before the message."""
        return type(self)(f"{name}: {self}")


class NotHounsfieldError(ScanError):
    """A study whose values are not HU."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """One CT study.

    Attributes:
      hu: int16 HU, (slice, row, column): slices from feet to head, rows from front to back, columns from the
        patient's right to left. May be a view that is not contiguous. Padding has the same value as in the file.
      spacing_mm: distance of neighbouring voxel centres along (slice, row, column).
      affine: (4, 4) float64, from the index (slice, row, column, 1) to mm in NIfTI's scanner space (right, anterior,
        superior positive).
      warnings: unusual properties that do not prevent the study's use, a line each.
      source_affine: (4, 4) float64, from the index (x, y, z, 1) of the voxels in the file to the same mm; None without
        a file.
      acquisition: how it was acquired.
      frames: of a DICOM series, the file and the index in it of each voxel layer along z in the file's axes, None where
        a slice is missing; () of other formats. The path of a file in an archive begins with the archive's, see
        `archive.files_again`.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    warnings: tuple[str, ...] = ()
    source_affine: np.ndarray | None = None
    acquisition: Acquisition = UNKNOWN
    frames: tuple[tuple[Path, int] | None, ...] = ()

    def to_source_axes(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flip and permute a volume (slice, row, column) on the study's voxels to the axes of the study's file.

        Returns:
          A view of it as (x, y, z), and the file's affine.
        """
        affine = self.affine if self.source_affine is None else self.source_affine
        from_lps = nib.orientations.ornt_transform(_LPS, nib.orientations.io_orientation(affine))
        return nib.orientations.apply_orientation(volume.transpose(2, 1, 0), from_lps), affine

    def voxels_sha256(self) -> str:
        """Hash shape and voxels: studies with the same hash are the same images, whatever their files are."""
        digest = hashlib.sha256(repr(self.hu.shape).encode())
        digest.update(np.ascontiguousarray(self.hu, "<i2").data)
        return digest.hexdigest()


SeriesChooser = Callable[[Iterator[Scan]], Scan]
"""Chooses a series of a study. They are read as they are taken from the iterator, the preferred one first."""


def to_standard_axes(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Flip and permute a volume to (slice, row, column), without interpolation.

    Args:
      voxels: (x, y, z) as stored, any order of axes.
      affine: (4, 4) from the index (x, y, z, 1) to mm in NIfTI's scanner space.

    Returns:
      A view of `voxels` as (slice, row, column), the affine of that view, and warnings.
    """
    ornt = nib.orientations.io_orientation(affine)
    if np.isnan(ornt).any():
        raise ScanError("two of its axes point the same way: the affine is not usable; export the study again")
    to_lps = nib.orientations.ornt_transform(ornt, _LPS)
    standard = nib.orientations.apply_orientation(voxels, to_lps)
    lps_affine = affine @ nib.orientations.inv_ornt_aff(to_lps, voxels.shape)
    # (column, row, slice) -> (slice, row, column)
    affine = lps_affine[:, [2, 1, 0, 3]]
    return standard.transpose(2, 1, 0), affine, _obliqueness(affine)


def is_identity(affine: np.ndarray) -> bool:
    """Return whether an affine is what programs write that know none: ones, in NIfTI's or in DICOM's axes."""
    return bool(np.allclose(np.abs(affine), np.eye(4), atol=1e-4))


def _obliqueness(affine: np.ndarray) -> list[str]:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # of each axis to the nearest axis of the scanner
    degrees = math.degrees(math.acos(min(1.0, float(np.abs(directions).max(axis=0).min()))))
    if degrees <= OBLIQUE_DEGREES:
        return []
    return [f"oblique by {degrees:.0f} degrees: read as if its axes were the scanner's"]


def check_grid(shape: tuple[int, ...], spacing: tuple[float, ...], bytes_per_voxel: int) -> None:
    """Check that shape and spacing are those of a chest CT, before anything is allocated.

    Args:
      shape: voxels along each axis, any order.
      spacing: mm along the same axes.
      bytes_per_voxel: as stored.

    Raises:
      ScanError: they are not; without the study's name.
    """
    if math.prod(shape) * bytes_per_voxel > MAX_BYTES:
        size = " x ".join(map(str, shape))
        raise ScanError(
            f"declares {size} voxels, more than the {MAX_BYTES >> 20} MiB that a chest CT may take; "
            "crop it or take thicker slices, or export it again if the header is damaged"
        )
    if not all(math.isfinite(step) and MIN_STEP_MM <= step <= MAX_STEP_MM for step in spacing):
        steps = " x ".join(f"{step:g}" for step in spacing)
        raise ScanError(f"has voxels of {steps} mm; set its spacing (pixdim and affine) to the scanner's values")


def finish_scan(
    voxels: np.ndarray,
    affine: np.ndarray,
    warnings: list[str],
    extremes: tuple[float, float] | None = None,
    num_filled: int = 0,
) -> Scan:
    """Convert a volume to the standard axes, and check that it can be a chest CT.

    Args:
      voxels: int16 HU in the file's own axes (x, y, z).
      affine: (4, 4), see `to_standard_axes`.
      warnings: about the file.
      extremes: lowest and highest HU before rounding to int16, if there was any.
      num_filled: slices that are known to repeat another.

    Raises:
      ScanError: it cannot; without the study's name.
    """
    hu, standard_affine, oblique = to_standard_axes(voxels, affine)
    slices, rows, columns = hu.shape
    if slices < MIN_SLICES:
        raise ScanError(f"has {slices} axial slices, at least {MIN_SLICES} are needed; give the whole chest")
    if min(rows, columns) < MIN_IN_PLANE:
        raise ScanError(
            f"has slices of {rows} x {columns} pixels, at least {MIN_IN_PLANE} x {MIN_IN_PLANE} are needed; "
            "check the order of its axes"
        )
    lowest, highest = extremes or (float(voxels.min()), float(voxels.max()))
    try:
        _check_hu(lowest, highest)
        air = _check_peaks(voxels)
    except NotHounsfieldError as error:
        if _is_left_justified(voxels):
            raise NotHounsfieldError(
                f"is not in Hounsfield units: its values are {LEFT_JUSTIFIED_STEP} apart, as of 12 bits in the highest "
                f"of 16 (left-justified); divide the stored values by {LEFT_JUSTIFIED_STEP} before the rescale"
            ) from error
        raise
    if moved := find_shear(hu):
        raise ScanError(
            f"each of its rows is moved by {moved} pixels against the one before: the numbers of rows and columns seem "
            "to be exchanged or wrong in its header; export it again"
        )
    if differing := find_mixed_slices(hu):
        raise ScanError(
            f"seems to be two scans mixed slice by slice: every other slice differs in {differing} from both of its "
            "neighbours; give one scan"
        )
    spacing = tuple(float(step) for step in np.linalg.norm(standard_affine[:3, :3], axis=0))
    oblique += [*air, *_describe_empty_parts(hu, num_filled)]
    oblique += describe_wrapped_values(hu, highest - lowest)
    sample = sample_body(hu)
    if jumps := count_jumps(sample):
        oblique.append(f"slices do not continue each other at {jumps} places: check that it is one scan and in order")
    if exchanged := find_exchanged_slices(sample):
        lower, upper = (index + 1 for index in exchanged)
        oblique.append(f"slices {lower} and {upper} of {len(hu)} seem to be exchanged: check that they are in order")
    if translation := find_translation(hu, spacing[0]):
        oblique.append(
            f"from slice {translation.slice + 1} of {len(hu)} on it is moved by {translation.pixels} pixels to the "
            f"{translation.direction}: check that no bytes were lost or inserted, and that it is one scan"
        )
    length, *sides = (size * step for size, step in zip(hu.shape, spacing, strict=True))
    if length > MAX_LENGTH_MM:
        oblique.append(f"{length:.0f} mm long, longer than a chest: check that it is one scan and give the chest only")
    if length < MIN_LENGTH_MM or max(sides) < WIDTH_MM[0] or max(sides) > WIDTH_MM[1]:
        size = " x ".join(f"{side:.0f}" for side in (*sides, length))
        oblique.append(f"its voxels cover {size} mm, unlike a chest: check its spacing")
    return Scan(hu, spacing, standard_affine, (*warnings, *oblique), affine)  # type: ignore[arg-type]


def scan_of_array(hu: np.ndarray, spacing_mm: Sequence[float]) -> Scan:
    """Make a study of an array, with the same checks as for files.

    Args:
      hu: HU, (slice, row, column) in the standard axes; any numeric type, rounded to int16.
      spacing_mm: between voxel centres along the same axes.

    Raises:
      ScanError: it is not a 3D CT in HU.
    """
    if hu.ndim != 3 or not hu.size or len(spacing_mm) != 3:
        raise ScanError(
            f"array of shape {hu.shape} with spacing {tuple(spacing_mm)}: give (slice, row, column) of both"
        )
    if not np.isfinite(hu).all():
        raise ScanError("array: holds NaN or infinite voxels; fill them with -1024")
    slice_mm, row_mm, column_mm = spacing_mm
    limits = np.iinfo(np.int16)
    voxels = np.rint(hu).clip(limits.min, limits.max).astype(np.int16).transpose(2, 1, 0)
    try:
        check_grid(hu.shape, tuple(spacing_mm), 2)
        # Columns run to the patient's left and rows to the back: against NIfTI's axes.
        affine = np.diag([-column_mm, -row_mm, slice_mm, 1.0])
        return finish_scan(voxels, affine, [], (float(hu.min()), float(hu.max())))
    except ScanError as error:
        raise error.of("array") from error


def _check_hu(lowest: float, highest: float) -> None:
    seen = f"its values are {lowest:g} to {highest:g}"
    if lowest == highest:
        raise ScanError(f"holds {lowest:g} in every voxel; export it again")
    if lowest > -300:
        hint = "add the rescale intercept" if highest > 1000 else "undo the windowing"
        raise NotHounsfieldError(f"is not in Hounsfield units: {seen}, and the air in a chest is near -1000; {hint}")
    if highest < -300:
        raise NotHounsfieldError(
            f"is not in Hounsfield units: {seen}, and a chest's soft tissue is near 0; export it again"
        )


def _is_left_justified(voxels: np.ndarray) -> bool:
    """Return whether values are multiples and have a range as if 12 bits were the highest of 16."""
    sample = voxels[::5, ::5]
    sample = sample[(sample > np.iinfo(np.int16).min) & (sample < np.iinfo(np.int16).max)].astype(int)
    return bool(sample.size and np.ptp(sample) > LEFT_JUSTIFIED_RANGE and not np.ptp(sample % LEFT_JUSTIFIED_STEP))


def _check_peaks(voxels: np.ndarray) -> list[str]:
    """Check that air and soft tissue are where they are in HU, whatever padding and single voxels are.

    Returns:
      A warning if air is somewhat off.
    """
    step = max(1, round((voxels.size / NUM_SAMPLED) ** (1 / 3)))
    sample = voxels[::step, ::step, ::step]
    below = sample[sample < PADDING_BELOW_HU]
    sample_size, sample = sample.size, sample[sample >= PADDING_BELOW_HU]
    if not sample.size:
        raise NotHounsfieldError(f"is not in Hounsfield units: it is below {PADDING_BELOW_HU}; export it again")
    # Padding is one value or a few; what varies is air.
    varying = below.size - np.sort(np.unique(below, return_counts=True)[1])[-MAX_PADDING_VALUES:].sum()
    if varying > MAX_BELOW_AIR_SHARE * sample_size:
        raise NotHounsfieldError(
            f"is not in Hounsfield units: {varying / sample_size:.0%} of its values vary below {PADDING_BELOW_HU}, and "
            "air is near -1000; export it again, with the rescale applied once"
        )
    air, tissue, dense = (
        np.count_nonzero((sample >= low) & (sample <= high)) / sample.size
        for low, high in ((PADDING_BELOW_HU, -500), (-200, 300), (601, np.inf))
    )
    has_no_air = air < MIN_AIR_SHARE or dense > MAX_DENSE_SHARE
    if has_no_air or tissue < MIN_TISSUE_SHARE:
        low, middle, high = np.percentile(sample, (5, 50, 95))
        expected, remedy = ("a chest's soft tissue is near 0", "export it again, with the rescale applied once")
        if has_no_air:
            expected, remedy = "air is near -1000 and soft tissue near 0", "add the rescale intercept"
        raise NotHounsfieldError(
            f"is not in Hounsfield units: apart from padding most of its values are {low:.0f} to {high:.0f}, with a "
            f"median of {middle:.0f}, and {expected}; {remedy}"
        )
    counts, edges = np.histogram(sample, np.arange(PADDING_BELOW_HU, LOWEST_TISSUE_HU, 10))
    most, is_dark = float(edges[counts.argmax()]), np.count_nonzero(sample <= AIR_HU[1]) > MIN_DARK_SHARE * sample.size
    if AIR_HU[0] <= most and is_dark:
        return []
    darkest = float(np.quantile(sample, MIN_DARK_SHARE))
    return [f"its air is near {min(most, darkest):.0f} HU instead of -1000: check the rescale slope and intercept"]


def _describe_empty_parts(hu: np.ndarray, num_filled: int) -> list[str]:
    """Describe slices, and parts of them, that hold one value only, slices that repeat, and padding that is no air."""
    row_step, column_step = (max(1, size // 64) for size in hu.shape[1:])
    sample = hu[:, ::row_step, ::column_step].copy()
    slices, rows, columns = (sample.min(axis=axes) == sample.max(axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
    lines = []
    if slices.any():
        lines.append(f"{slices.sum()} of {len(hu)} slices hold one value only: check that the study is whole")
    repeated = (sample[1:] == sample[:-1]).all(axis=(1, 2)) & ~slices[1:]
    if repeated.sum() > num_filled:
        lines.append(f"{repeated.sum()} of {len(hu)} slices repeat the one below them: check that the study is whole")
    for name, blank in (("rows", rows), ("columns", columns)):
        if blank.mean() > MAX_BLANK_SHARE:
            lines.append(f"{blank.mean():.0%} of the {name} hold one value only: check that the study is whole")
    highest = int(sample.max())
    few = len(np.unique(sample[::4])) <= MAX_8_BIT  # sorting all takes long
    if few and (count := len(np.unique(sample))) <= MAX_8_BIT:
        lines.append(
            f"holds {count} different values only: it seems to have been windowed to 8 bits; give the original"
        )
    elif highest < MIN_HIGHEST_HU and (sample == highest).mean() > MAX_HIGHEST_SHARE:
        lines.append(f"all above {highest} HU is cut off: it seems to have been windowed; give the original")
    corners = hu[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    if corners.min() == corners.max() > LOWEST_TISSUE_HU:
        lines.append(f"outside of the field of view all is {corners.max()} HU, which is no air: fill it with -1024")
    return lines
