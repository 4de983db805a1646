"""Slices of a DICOM series that do not fit their neighbours, as of another scan, or with other HU."""

import collections

import numpy as np

from tfds_mosmed.scans.dicom.series import Series

# Attributes that are the same in all slices of one scan.
CONSTANT_TAGS = ("ImageType", "ConvolutionKernel", "ContrastBolusAgent", "KVP", "FilterType")
MAX_SHIFT_MM = 2.0  # within the plane, between neighbours
MAX_HU_STEP = 60  # median over the pixels: anatomy changes few of them
PIXEL_STEP = 4


def describe_misfits(series: Series, hu: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Describe what is not the same in all slices of a series.

    Args:
      series: the series.
      hu: its volume (slice, row, column).
      numbers: index of each slice in the volume.
    """
    lines = [_describe_values(series, tag) for tag in CONSTANT_TAGS]
    if 1 < (num_joined := len({one.series for one in series.slices})) < len(series.slices):
        lines.append(f"{num_joined} series one above the other were joined, as their geometry fits")
    return [line for line in (*lines, _describe_shifts(series, numbers), _describe_hu_step(hu, numbers)) if line]


def _describe_values(series: Series, tag: str) -> str:
    counts = collections.Counter(one.attributes[tag] for one in series.slices)
    if tag != "ContrastBolusAgent":  # without an agent it is absent; others are left out by mistake
        del counts[""]
    parts = " and ".join(str(count) for count in counts.values())
    return f"the slices differ in {tag} ({parts} of them): they may be of two scans" if len(counts) > 1 else ""


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
    steps = np.abs(np.median(np.diff(sample, axis=0), axis=(1, 2)))
    if len(steps) == 0 or steps.max() <= MAX_HU_STEP:
        return ""
    lower, upper = present[steps.argmax() : steps.argmax() + 2] + 1
    return (
        f"HU change by {steps.max():.0f} everywhere between slices {lower} and {upper}: "
        "they may be of two scans or have wrong rescale values"
    )
