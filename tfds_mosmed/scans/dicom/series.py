"""Series of CT slices in the order of their positions, and which of them to read first."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfds_mosmed.scans.dicom.derivation import NOT_A_PICTURE, Derivation
from tfds_mosmed.scans.dicom.headers import Slice
from tfds_mosmed.scans.scan import MIN_SLICES, ScanError

SAME_POSITION_MM = 0.01
MIN_AXIAL_COSINE = 0.8  # of the angle between the slices' normal and the body's axis
MIN_LENGTH_SHARE = 0.8  # of the longest axial series
MAX_OVERLAP = 0.5  # of the shorter one, of series that continue each other
MAX_GAP_STEPS = 5
PREFERRED_STEP_MM = 8.0  # MosMedData's
SHARP_KERNELS = ("LUNG", "BONE", "EDGE", "SHARP", "YA", "YB", "B6", "B7", "B8", "BL", "BR6", "FC5", "FC8")


class Series(NamedTuple):
    """Slices that form a volume.

    Attributes:
      slices: in the order of their positions, without duplicates.
      step_mm: distance of neighbouring slices, the median.
      duplicates: slices that were left out because another has the same position, and that one's index.
      differs_in: attribute by which it was parted from others with its SeriesInstanceUID, "" if there are none.
    """

    slices: list[Slice]
    step_mm: float
    duplicates: list[tuple[Slice, int]]
    differs_in: str = ""

    @property
    def is_axial(self) -> bool:
        """True if the slices are nearly perpendicular to the body's axis."""
        return abs(self.slices[0].normal[2]) > MIN_AXIAL_COSINE

    @property
    def derivation(self) -> Derivation:
        """That of the most derived slice."""
        return max((one.derivation for one in self.slices), key=lambda one: one.degree)

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
        offsets = offsets_mm(self.slices)
        return offsets - offsets[0]


def sort_slices(slices: list[Slice], differs_in: str = "") -> Series:
    """Sort the slices of a series by position; of those with the same position, the first is kept."""
    offsets = offsets_mm(slices)
    order = np.argsort(offsets, kind="stable")
    is_new = np.diff(offsets[order], prepend=-np.inf) > SAME_POSITION_MM
    kept = [slices[index] for index in order[is_new]]
    duplicates = [(slices[order[i]], int(is_new[: i + 1].sum()) - 1) for i in np.flatnonzero(~is_new)]
    steps = np.diff(offsets[order][is_new])
    return Series(kept, float(np.median(steps)) if len(steps) else 0.0, duplicates, differs_in)


def offsets_mm(slices: list[Slice]) -> np.ndarray:
    """Return the positions of slices along the first one's normal, from the scanner's origin."""
    return np.array([header.position @ slices[0].normal for header in slices])


def rank_axial_series(series: list[Series]) -> list[Series]:
    """Sort the axial series by preference, see `_criteria`. Derived ones are left out if there is an original one.

    Raises:
      ScanError: no axial series has enough slices or is one of pictures in HU; without the study's name.
    """
    axial = [one for one in series if one.is_axial and len(one.slices) >= MIN_SLICES]
    if not axial:
        longest = max(series, key=lambda one: len(one.slices))
        if len(longest.slices) == 1 < MIN_SLICES <= len(longest.duplicates) + 1:
            raise ScanError(
                f"has {len(longest.duplicates) + 1} slices with one and the same ImagePositionPatient; "
                "export the series with the slices' positions"
            )
        singles = sum(len(one.slices) == 1 for one in series)
        parts = f"; {singles} series of one slice do not fit together" if singles > 1 else ""
        raise ScanError(
            f"has no series of {MIN_SLICES} or more axial slices (the longest has {len(longest.slices)}{parts}); "
            "give the whole chest"
        )
    derivation = min(one.derivation.degree for one in axial)
    if derivation == NOT_A_PICTURE:
        raise ScanError(
            "has no axial CT slices but projections (MIP, MinIP, average) or maps that are not in HU, as their "
            f"{axial[0].derivation.sign} says; give the original series"
        )
    axial = [
        one for one in axial if one.derivation.degree == 0 or 0 < derivation <= one.derivation.degree < NOT_A_PICTURE
    ]
    criteria = [key for _, key in _criteria(axial)]
    return sorted(axial, key=lambda one: (*(key(one) for key in criteria), one.slices[0].series))


def num_longest(ranked: list[Series]) -> int:
    """Count the series that come first: as little derived as the first one, and as long as the longest if it is."""
    (_, derivation), (_, is_short) = _criteria(ranked)[:2]
    return sum((derivation(one), is_short(one)) == (derivation(ranked[0]), is_short(ranked[0])) for one in ranked)


def describe_choice(chosen: Series, ranked: list[Series], series: list[Series]) -> list[str]:
    """Describe which series of a study was used and why, if there is another one, or if it is a derived one."""
    lines = []
    if len(series) > 1:
        lines.append(f"{len(series)} series: used the one of {chosen} ({_reason(chosen, ranked, series)})")
    if chosen.derivation.degree:
        lines.append(f"the series is not an original one, as its {chosen.derivation.sign} says")
    if chosen.differs_in:
        lines.append(f"one SeriesInstanceUID has several stacks of slices, which differ in {chosen.differs_in}")
    if any(one.is_axial and MIN_LENGTH_SHARE * one.length_mm > chosen.length_mm for one in series):
        lines.append("a longer axial series was not used: it is derived, has no lungs or cannot be read")
    if any(_interleaves(chosen, other) for other in series):
        lines.append(
            f"another series has the slices half-way between those of this one, {chosen.step_mm:.3g} mm apart: they "
            "may be halves of one scan"
        )
    if any(_continues(chosen, other) for other in series):
        lines.append("another series continues this one above or below, and was not used: they do not fit together")
    return lines


def _criteria(axial: list[Series]) -> list[tuple[str, Callable[[Series], float]]]:
    """Return the criteria of preference, most important first: why, and a function that is lowest for the best."""
    min_length_mm = MIN_LENGTH_SHARE * max(one.length_mm for one in axial)
    return [
        ("less derived than the others", lambda one: one.derivation.degree),
        ("long enough for a chest", lambda one: one.length_mm < min_length_mm),
        ("a soft kernel", lambda one: one.has_sharp_kernel),
        (f"nearest to {PREFERRED_STEP_MM:g} mm", lambda one: abs(one.step_mm - PREFERRED_STEP_MM)),
    ]


def _reason(chosen: Series, ranked: list[Series], series: list[Series]) -> str:
    if chosen is not ranked[0]:
        return "the preferred one has no lungs or cannot be read"
    reasons = []
    if len(ranked) > 1:
        differing = (reason for reason, key in _criteria(ranked) if key(chosen) < key(ranked[1]))
        reasons.append(next(differing, "the first of several alike"))
    axial = [one for one in series if one.is_axial and len(one.slices) >= MIN_SLICES]
    if any(one.derivation.degree > chosen.derivation.degree for one in axial):
        reasons.append("original, not derived" if not chosen.derivation.degree else "less derived than the others")
    return ", ".join(dict.fromkeys(reasons)) or "the only one of axial slices"


def _continues(chosen: Series, other: Series) -> bool:
    """Return whether another axial series goes on above or below where this one ends, with a small gap or overlap."""
    if other is chosen or not other.is_axial or other.derivation.degree == NOT_A_PICTURE:
        return False
    heights = [sorted(one.slices[index].position[2] for index in (0, -1)) for one in (chosen, other)]
    gap_mm = max(heights[1][0] - heights[0][1], heights[0][0] - heights[1][1])
    least_mm = -MAX_OVERLAP * min(chosen.length_mm, other.length_mm)
    return len(other.slices) >= MIN_SLICES and least_mm < gap_mm < MAX_GAP_STEPS * max(chosen.step_mm, other.step_mm)


def _interleaves(chosen: Series, other: Series) -> bool:
    """Return whether another axial series has thick slices half-way between those of this one."""
    if other is chosen or not other.is_axial or abs(len(other.slices) - len(chosen.slices)) > 1:
        return False
    normal = chosen.slices[0].normal
    first, second = (np.sort([header.position @ normal for header in one.slices]) for one in (chosen, other))
    between = (second[:, None] - first[None]) / chosen.step_mm % 1
    return chosen.step_mm >= PREFERRED_STEP_MM and bool(np.all(np.abs(between - 0.5) < 0.25))
