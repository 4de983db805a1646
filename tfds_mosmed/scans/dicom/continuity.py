"""Slices of a DICOM series that do not fit their neighbours, as of another scan, or with other HU."""

import collections
import itertools

import numpy as np

from tfds_mosmed.scans.dicom.headers import CONCATENATION_TAGS
from tfds_mosmed.scans.dicom.series import Series

# Attributes that are the same in all slices of one scan.
CONSTANT_TAGS = ("ImageType", "ConvolutionKernel", "ContrastBolusAgent", "KVP", "FilterType")
# And those that a scan with contrast agent alone has.
CONTRAST_TAGS = ("ContrastBolusRoute", "ContrastBolusVolume", "ContrastBolusStartTime")
MAX_PAUSE_S = 15.0  # between turns of the tube
MAX_LOCATION_ERROR = 0.2  # a tilt of the gantry is less
MAX_SHIFT_MM = 2.0  # within the plane, between neighbours
MAX_HU_STEP = 60  # median over the pixels: anatomy changes few of them
MAX_AIR_STEP = 25  # likewise over those with air in both slices
AIR_HU = (-1200, -850)
MIN_AIR_PIXELS = 50
PIXEL_STEP = 4


def describe_misfits(series: Series, hu: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Describe what is not the same in all slices of a series.

    Args:
      series: the series.
      hu: its volume (slice, row, column).
      numbers: index of each slice in the volume.
    """
    lines = [_describe_values(series, tag) for tag in (*CONSTANT_TAGS, *CONTRAST_TAGS)]
    if 1 < (num_joined := len({one.series for one in series.slices})) < len(series.slices):
        lines.append(f"{num_joined} series one above the other were joined, as their geometry fits")
    lines += [_describe_lost_parts(series), _describe_pause(series), _describe_locations(series)]
    return [line for line in (*lines, _describe_shifts(series, numbers), _describe_hu_step(hu, numbers)) if line]


def _describe_values(series: Series, tag: str) -> str:
    counts = collections.Counter(one.attributes[tag] for one in series.slices)
    if not tag.startswith("ContrastBolus"):  # without an agent they are absent; others are left out by mistake
        del counts[""]
    parts = " and ".join(str(count) for count in counts.values())
    return f"the slices differ in {tag} ({parts} of them): they may be of two scans" if len(counts) > 1 else ""


def _describe_lost_parts(series: Series) -> str:
    """Describe files of a concatenation (DICOM PS3.3 C.7.6.16.2.2.4) that are not there."""
    parts = collections.defaultdict(set)
    totals = {}
    for one in series.slices:
        uid, number, total = (one.attributes[tag] for tag in CONCATENATION_TAGS)
        if uid and number.isdecimal():
            parts[uid].add(int(number))
            totals[uid] = int(total) if total.isdecimal() else 0
    for uid, numbers in parts.items():
        count = max(totals[uid], *numbers)
        if lost := sorted({*range(1, count + 1)} - numbers):
            return (
                f"lacks {len(lost)} of the {count} files of its concatenation, the first of them number {lost[0]}: "
                "check that the series is whole"
            )
    return ""


def _describe_pause(series: Series) -> str:
    """Describe a pause between two parts one above the other, as between a native scan and one with contrast agent."""
    times = _numbers(series, "AcquisitionTime")
    if times is None:
        return ""
    seconds = times // 10_000 * 3600 + times // 100 % 100 * 60 + times % 100
    pauses_s = np.abs(np.diff(seconds))
    if np.count_nonzero(pauses_s > MAX_PAUSE_S) != 1:
        return ""  # none, or times that do not follow the slices
    at = int(pauses_s.argmax())
    return f"slices {at + 1} and {at + 2} were acquired {pauses_s[at]:.0f} s apart: they may be of two scans"


def _describe_locations(series: Series) -> str:
    """Describe a distance of the slices that is not that of their SliceLocation, as where positions are not in mm."""
    locations = _numbers(series, "SliceLocation")
    location_mm = 0.0 if locations is None else float(np.median(np.abs(np.diff(locations))))
    if not location_mm or abs(series.step_mm / location_mm - 1) <= MAX_LOCATION_ERROR:
        return ""
    return (
        f"slices are {series.step_mm:.3g} mm apart by ImagePositionPatient, and {location_mm:.3g} mm by SliceLocation: "
        "check which is right"
    )


def _numbers(series: Series, tag: str) -> np.ndarray | None:
    try:
        return np.array([float(one.attributes[tag]) for one in series.slices])
    except ValueError:
        return None


def _describe_shifts(series: Series, numbers: np.ndarray) -> str:
    """Describe jumps of the slices' positions within their plane; an even drift is a tilt."""
    positions = np.array([one.position for one in series.slices]) @ series.slices[0].directions.T
    steps = np.diff(positions, axis=0)
    drift = np.median(steps / np.diff(numbers)[:, None], axis=0)
    shifts_mm = np.abs(steps - drift * np.diff(numbers)[:, None]).max(axis=1)
    if not len(at := np.flatnonzero(shifts_mm > MAX_SHIFT_MM)):
        return ""
    return (
        f"the slices do not lie above each other: slice {numbers[at[0] + 1] + 1} is shifted "
        f"by {shifts_mm[at[0]]:.3g} mm within its plane against the one before it"
    )


def _describe_hu_step(hu: np.ndarray, numbers: np.ndarray) -> str:
    """Describe the largest step of HU between slices that follow each other, but for those without a picture."""
    present = numbers[[hu[number].min() < hu[number].max() for number in numbers]]
    sample = hu[present][:, ::PIXEL_STEP, ::PIXEL_STEP].astype(np.int32)
    steps = [_hu_step(*two) for two in itertools.pairwise(sample)]
    if not any(steps):
        return ""
    at = int(np.argmax(steps))
    return (
        f"HU change by {steps[at]:.0f} everywhere between slices {present[at] + 1} and {present[at + 1] + 1}: "
        "they may be of two scans or have wrong rescale values"
    )


def _hu_step(lower: np.ndarray, upper: np.ndarray) -> float:
    """Return the step of HU between two slices if it is larger than anatomy makes it, else 0."""
    step = abs(float(np.median(upper - lower)))
    is_air = ((lower > AIR_HU[0]) & (lower < AIR_HU[1])) & ((upper > AIR_HU[0]) & (upper < AIR_HU[1]))
    in_air = abs(float(np.median((upper - lower)[is_air]))) if np.count_nonzero(is_air) >= MIN_AIR_PIXELS else 0.0
    return max(step if step > MAX_HU_STEP else 0.0, in_air if in_air > MAX_AIR_STEP else 0.0)
