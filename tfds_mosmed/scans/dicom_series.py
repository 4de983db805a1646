"""CT slices -> series: which slices belong together, in which order, and which series to read first."""

import collections
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfds_mosmed.scans.dicom_headers import Slice
from tfds_mosmed.scans.scan import MIN_SLICES, ScanError

SAME_POSITION_MM = 0.01
MIN_AXIAL_COSINE = 0.8  # of the angle between the slices' normal and the body's axis
MIN_LENGTH_SHARE = 0.8  # of the longest axial series
PREFERRED_STEP_MM = 8.0  # MosMedData's
SHARP_KERNELS = ("LUNG", "BONE", "EDGE", "SHARP", "YA", "YB", "B6", "B7", "B8", "BL", "BR6", "FC5", "FC8")


class Series(NamedTuple):
    """Slices that form a volume.

    Attributes:
      slices: in the order of their positions, without duplicates.
      step_mm: distance of neighbouring slices, the median.
      num_duplicates: slices that were left out because another has the same position.
    """

    slices: list[Slice]
    step_mm: float
    num_duplicates: int

    @property
    def is_axial(self) -> bool:
        """True if the slices are nearly perpendicular to the body's axis."""
        return abs(self.slices[0].normal[2]) > MIN_AXIAL_COSINE

    @property
    def length_mm(self) -> float:
        """Extent along the slices' normal."""
        return self.step_mm * len(self.slices)

    @property
    def has_sharp_kernel(self) -> bool:
        """True if it was reconstructed with an edge-enhancing kernel."""
        return self.slices[0].kernel.upper().startswith(SHARP_KERNELS)

    def __str__(self) -> str:
        kernel = f", kernel {self.slices[0].kernel}" if self.slices[0].kernel else ""
        return f"{len(self.slices)} axial slices, {self.step_mm:.3g} mm apart{kernel}"

    def offsets_mm(self) -> np.ndarray:
        """Positions of the slices along their normal, from the first: (slice,)."""
        offsets = _offsets_mm(self.slices)
        return offsets - offsets[0]


def group_into_series(slices: Iterable[Slice]) -> list[Series]:
    """Group the slices of one study by series, size, direction and pixel size, and sort each group by position."""
    groups = collections.defaultdict(list)
    for header in slices:
        directions = tuple(header.directions.round(3).ravel())
        groups[header.series, header.shape, directions, header.pixel_mm].append(header)
    return [_sort_slices(group) for group in groups.values()]


def _sort_slices(slices: list[Slice]) -> Series:
    offsets = _offsets_mm(slices)
    order = np.argsort(offsets, kind="stable")
    is_new = np.diff(offsets[order], prepend=-np.inf) > SAME_POSITION_MM
    kept = [slices[index] for index in order[is_new]]
    steps = np.diff(offsets[order][is_new])
    return Series(kept, float(np.median(steps)) if len(steps) else 0.0, len(slices) - len(kept))


def _offsets_mm(slices: list[Slice]) -> np.ndarray:
    return np.array([header.position @ slices[0].normal for header in slices])


def rank_axial_series(series: list[Series]) -> list[Series]:
    """Sort the axial series by preference: long before short, soft kernel before sharp, then by distance of slices.

    Raises:
      ScanError: no axial series has enough slices; without the study's name.
    """
    axial = [one for one in series if one.is_axial and len(one.slices) >= MIN_SLICES]
    if not axial:
        longest = max(len(one.slices) for one in series)
        raise ScanError(
            f"has no series of {MIN_SLICES} or more axial slices (the longest has {longest}); give the whole chest"
        )
    min_length_mm = MIN_LENGTH_SHARE * max(one.length_mm for one in axial)

    def rank(one: Series) -> tuple:
        is_short = one.length_mm < min_length_mm
        return (is_short, one.has_sharp_kernel, abs(one.step_mm - PREFERRED_STEP_MM), one.slices[0].series)

    return sorted(axial, key=rank)
