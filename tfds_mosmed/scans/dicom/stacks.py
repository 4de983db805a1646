"""Stacks of CT slices: which slices of a study belong together.

A SeriesInstanceUID usually is one volume, but may hold two (native and with contrast agent, two kernels), and a volume
may have several (one for each slice, or one for each half of the chest).
"""

import collections
from collections.abc import Iterable

import numpy as np

from tfds_mosmed.scans.dicom.continuity import CONSTANT_TAGS
from tfds_mosmed.scans.dicom.headers import DERIVATION, ORDER_TAGS, STACK_TAGS, Slice
from tfds_mosmed.scans.dicom.series import SAME_POSITION_MM, Series, offsets_mm, sort_slices
from tfds_mosmed.scans.scan import MIN_SLICES

# Decimals are rounded differently in the slices of one series.
DIRECTION_TOLERANCE = 0.01
PIXEL_TOLERANCE_MM = 0.006
POSITION_TOLERANCE_MM = 1.0  # in the plane, of stacks that are joined
MIN_OVERLAP = 0.5  # of the shorter one, for two stacks of the same place
MAX_GAPS = 0.1  # share of missing slices of a stack
MAX_UNEVENNESS = 0.2  # of a distance that is that of the others
MAX_STEP_MM = 10.0  # of the slices of a chest CT
MIN_FAR_STEPS = 3.5
MAX_FAR_SLICES = 3


def group_into_series(slices: Iterable[Slice]) -> list[Series]:
    """Group the slices of one study into stacks, and sort each by position."""
    by_uid = collections.defaultdict(list)
    for header in slices:
        by_uid[header.series].append(header)
    series = []
    for group in by_uid.values():
        stacks = [(stack, "") for stack in _part_by_geometry(group)]
        if len(stacks) > 1:
            stacks = [(stack, "size, PixelSpacing or ImageOrientationPatient") for stack, _ in stacks]
        for tag in (*STACK_TAGS, DERIVATION):
            stacks = [part for stack, why in stacks for part in _part_by_tag(stack, tag, why)]
        for tag in ORDER_TAGS:
            stacks = [part for stack, why in stacks for part in _part_by_order(stack, tag, why)]
        for part_few in (_part_far_slices, _part_slices_between):
            stacks = [part for stack, why in stacks for part in part_few(stack, why)]
        series += [sort_slices(stack, why) for stack, why in stacks]
    return _join_halves(_join_singles(series))


def _fits(one: Slice, other: Slice) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.directions, other.directions, rtol=0, atol=DIRECTION_TOLERANCE)
        and np.allclose(one.pixel_mm, other.pixel_mm, rtol=0, atol=PIXEL_TOLERANCE_MM)
    )


def _part_by_geometry(slices: list[Slice]) -> list[list[Slice]]:
    stacks: list[list[Slice]] = []
    for header in slices:
        for stack in stacks:
            if _fits(stack[0], header):
                stack.append(header)
                break
        else:
            stacks.append([header])
    return stacks


def _part_by_tag(stack: list[Slice], tag: str, why: str) -> list[tuple[list[Slice], str]]:
    return _part_by_values(stack, [header.attributes[tag] for header in stack], tag, why)


def _part_by_values(stack: list[Slice], values: Iterable[object], tag: str, why: str) -> list[tuple[list[Slice], str]]:
    """Part a stack by a value if its parts lie in the same place: each a stack, or with slices at one position.

    Parts one above the other stay together: in some scanners each turn of the tube is an acquisition.
    """
    parts = collections.defaultdict(list)
    for header, value in zip(stack, values, strict=True):
        parts[value].append(header)
    if len(parts) == 1:
        return [(stack, why)]
    normal = stack[0].normal
    places = [np.sort([header.position @ normal for header in part]) for part in parts.values()]
    distinct = [(np.diff(place, prepend=-np.inf) > SAME_POSITION_MM).sum() for place in places]
    together = np.sort(np.concatenate(places))
    num_shared = sum(distinct) - (np.diff(together, prepend=-np.inf) > SAME_POSITION_MM).sum()
    large = [place for place in places if len(place) >= MIN_SLICES]
    if (
        not num_shared
        and _is_even(together)
        and min(map(_step_mm, large), default=0) > MAX_STEP_MM >= _step_mm(together)
    ):
        return [(stack, why)]  # either would have gaps: the slices alternate within one scan
    overlap = any(_overlap(one, other) for index, one in enumerate(large) for other in large[:index])
    is_mixed = num_shared >= MIN_OVERLAP * min(distinct) and len(large) > 0
    if is_mixed or (overlap and all(_is_even(place) for place in large)):
        return [(part, tag) for part in parts.values()]
    return [(stack, why)]


def _part_by_order(stack: list[Slice], tag: str, why: str) -> list[tuple[list[Slice], str]]:
    """Part a stack by an attribute that counts the slices, or by their times: it runs through each part by itself."""
    try:
        counts = np.array([float(header.attributes[tag]) for header in stack])
    except ValueError:
        return [(stack, why)]
    offsets = np.array([header.position for header in stack]) @ stack[0].normal
    numbers = min((_number_runs(counts, along) for along in (offsets, -offsets)), key=max)
    if np.bincount(numbers).min() < MIN_SLICES:
        return [(stack, why)]
    return _part_by_values(stack, numbers.tolist(), tag, why)


def _number_runs(counts: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Number the runs of slices in the order of `counts` that go along the stack: (slice,) int."""
    order = np.lexsort((along, counts))
    numbers = np.empty(len(order), int)
    numbers[order] = np.cumsum(np.diff(along[order], prepend=-np.inf) < 0)
    return numbers


def _step_mm(offsets: np.ndarray) -> float:
    return float(np.median(np.diff(offsets)))


def _part_far_slices(stack: list[Slice], why: str) -> list[tuple[list[Slice], str]]:
    """Part a few slices far above or below from a stack, as those that watch the contrast agent arrive."""
    offsets = np.array([header.position for header in stack]) @ stack[0].normal
    order = np.argsort(offsets)
    gaps = np.diff(offsets[order])
    if len(stack) < MIN_SLICES or not (gaps > SAME_POSITION_MM).any():
        return [(stack, why)]
    far = gaps > MIN_FAR_STEPS * np.median(gaps[gaps > SAME_POSITION_MM])
    blocks = np.split(order, np.flatnonzero(far) + 1)
    largest = max(blocks, key=len)
    if len(blocks) == 1 or max(len(block) for block in blocks if block is not largest) > MAX_FAR_SLICES:
        return [(stack, why)]
    others = np.setdiff1d(order, largest)
    return [([stack[index] for index in part], "distance from the others") for part in (largest, others)]


def _part_slices_between(stack: list[Slice], why: str) -> list[tuple[list[Slice], str]]:
    """Part slices at a few positions between those of a stack that is even without them."""
    offsets = np.array([header.position for header in stack]) @ stack[0].normal
    kept = np.sort(offsets)
    kept = kept[np.diff(kept, prepend=-np.inf) > SAME_POSITION_MM]
    if len(kept) < MIN_SLICES or not SAME_POSITION_MM < (step := _step_mm(kept)) <= MAX_STEP_MM:
        return [(stack, why)]
    num_positions = len(kept)
    while len(kept) > 2:
        across = np.abs(kept[2:] - kept[:-2] - step)
        if across.min() > MAX_UNEVENNESS * step:
            break
        kept = np.delete(kept, across.argmin() + 1)
    is_kept = np.abs(offsets[:, None] - kept).min(axis=1) <= SAME_POSITION_MM
    if not 0 < num_positions - len(kept) <= MAX_FAR_SLICES or 2 * (~is_kept).sum() > is_kept.sum():
        return [(stack, why)]
    parts = [[one for one, inside in zip(stack, is_kept, strict=True) if inside == part] for part in (True, False)]
    return [(part, "distance from the others") for part in parts]


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    shared_mm = min(one[-1], other[-1]) - max(one[0], other[0])
    return shared_mm > MIN_OVERLAP * min(np.ptp(one), np.ptp(other))


def _is_even(offsets: np.ndarray) -> bool:
    """Return whether sorted positions are those of slices at even distances, but for a few that are missing."""
    steps = np.diff(offsets)
    step = np.median(steps)
    return bool(step > SAME_POSITION_MM and (np.abs(steps / step - 1) > MAX_UNEVENNESS).mean() <= MAX_GAPS)


def _may_join(one: Slice, other: Slice) -> bool:
    if not _fits(one, other) or one.frame_of_reference != other.frame_of_reference:
        return False
    shift_mm = np.abs((other.position - one.position) @ one.directions.T).max()
    return shift_mm < POSITION_TOLERANCE_MM and all(
        one.attributes[tag] == other.attributes[tag] for tag in CONSTANT_TAGS
    )


def _join_singles(series: list[Series]) -> list[Series]:
    """Join series of one slice each."""
    joined: list[list[Slice]] = []
    for one in series:
        if len(one.slices) > 1 or one.duplicates:
            continue
        for stack in joined:
            if _may_join(stack[0], one.slices[0]):
                stack.append(one.slices[0])
                break
        else:
            joined.append([one.slices[0]])
    return [one for one in series if len(one.slices) > 1 or one.duplicates] + [sort_slices(one) for one in joined]


def _join_halves(series: list[Series]) -> list[Series]:
    """Join series one above the other, if they have the same frame of reference, geometry and distance of slices.

    Without a frame of reference only parts that are too short for a chest are joined.
    """
    joined: list[Series] = []
    for one in sorted(series, key=lambda one: one.slices[0].position @ one.slices[0].normal):
        for index, other in enumerate(joined):
            if _is_next(other, one):
                joined[index] = sort_slices(
                    [*other.slices, *one.slices, *(header for header, _ in (*other.duplicates, *one.duplicates))]
                )
                break
        else:
            joined.append(one)
    return joined


def _is_next(lower: Series, upper: Series) -> bool:
    has_frame = bool(lower.slices[0].frame_of_reference) or min(len(lower.slices), len(upper.slices)) < MIN_SLICES
    if not has_frame or not _may_join(lower.slices[0], upper.slices[0]):
        return False
    offsets = offsets_mm([*lower.slices, *upper.slices])
    gap_mm = offsets[len(lower.slices)] - offsets[len(lower.slices) - 1]
    tolerance_mm = MAX_UNEVENNESS * lower.step_mm
    return abs(gap_mm - lower.step_mm) <= tolerance_mm and abs(upper.step_mm - lower.step_mm) <= tolerance_mm
