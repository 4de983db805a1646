"""A look at the anatomy: whether axes and distances of a study are those of its affine, and whether it is one scan."""

from typing import NamedTuple

import numpy as np

from tfds_mosmed.preprocessing.lungs import TISSUE_ABOVE_HU, LungSegmentation, label_parts

BONE_ABOVE_HU = 250
MIDLINE_MM = 20.0  # to each side
# From the front and back of the lungs inwards: spine and sternum, little of a heart with contrast agent.
OUTER_MM = 30.0
MIN_AREA_SHARE = 0.02  # of the largest slice's lung
MIN_LUNG_SHARE = 0.2  # of all aerated lung, on either side, for that side's taper to count
MAX_TAPER = 1.1  # normally 0.65 to 0.95, upside down 1.1 to 1.5
MAX_CUT_OFF = 0.3  # of the largest area, in the first or last slice; where more is cut off, the taper is unknown
HEIGHT = (0.47, 1.5)  # of the lungs, as a share of their width; normally 0.65 to 1.1, shorter where bases are white
MAX_WHOLE = 0.05  # as MAX_CUT_OFF; where more is cut off, the lungs may be as short as they are
MIN_WIDTH = 0.97  # of the body, as a share of its depth; normally 1.1 to 1.5, with axes exchanged 0.65 to 0.92
MAX_CROPPED = 0.3  # of the body at the right or left edge
# Of the longest axis of both the lungs and the body, seen along the body, against the rows; the smaller of both is at
# most 7 in whole chests. Above the highest one the body is deeper than wide.
TURNED_DEGREES = (10.0, 60.0)
MAX_TURNED_APART = 15.0
MIN_SLICE_END = 0.1  # of the body, in the first or last slice
MAX_VALLEY = 0.2  # normally above 0.4, between two scans below 0.1
MIN_BACK = -0.25  # normally 0.3 to 1.5
BASE_MM = 100.0  # by which the base of the lungs would lie further back to count as much as bone; white bases mislead


# Where heart and descending aorta lie, as shares of what is compared on both sides. Of 8 real chests 6 have both on the
# left by that much, of 144 phantoms 56; none has both on the right.
HEART_AT, AORTA_AT = (0.12, 0.5), (0.4, 0.75)  # of the lungs' height, from the feet
HEART_MM = 90.0  # to each side of the spine
AORTA_MM = (10.0, 45.0)  # likewise
AORTA_DEPTH_MM = 20.0  # in front of the spine's front and behind it
SPINE_ABOVE_HU, SPINE_MM = 150, 40.0
SPINE_FRONT = 0.1  # of the bone is further in front
MIN_SPINE_VOXELS = 20
MAX_PIXEL_MM = 5.0  # in wider ones half a pixel, by which the middle of the spine may be off, counts as an aorta
HEART_ABOVE_HU = -150
MIN_HEART, MIN_AORTA, MIN_AORTA_SLICES = 0.07, 0.15, 0.9


class _Shape(NamedTuple):
    """Measurements of a chest.

    Attributes:
      ends: along each axis, the body's area in the first or last slice, the smaller, divided by its largest area.
      width: of the body divided by its depth.
      taper: width of the upper fifth of a lung, from the middle, divided by that of its lower fifth; the geometric mean
        of both lungs, of which one may end far above the other.
      cut_off: area of lung in the first or last slice, the larger, divided by the largest of all slices.
      height: of the lungs divided by their width.
      valley: the smallest area of lung in a slice between two larger ones, divided by the smaller of these.
      back: above 0 if the rows run from front to back: the spine is behind, and so is the base of the lungs.
      turned: degrees between the rows and the longest axis of lungs and body, the smaller of both; 0 where they differ.
    """

    ends: tuple[float, float, float]
    width: float
    taper: float
    cut_off: float
    height: float
    valley: float
    back: float
    turned: float


def check_anatomy(chest: LungSegmentation) -> list[str]:
    """Describe signs of axes that are flipped, exchanged or permuted, of wrong distances, and of two scans in one.

    Right and left can be told apart only where heart and aorta both lie clearly on one side: in many patients the heart
    is in the middle.

    Args:
      chest: of a whole scan; without lungs nothing is described.

    Returns:
      A line each.
    """
    if chest.mask is None:
        return []
    shape = _measure(chest.hu, chest.spacing_mm, chest.mask)
    slices, rows, columns = shape.ends
    if slices < max(rows, columns) and (slices < MIN_SLICE_END or shape.valley < MAX_VALLEY):
        return ["its slices seem not to be axial: the axes may be in another order than the affine says"]
    lines = []
    if shape.valley < MAX_VALLEY:
        lines.append("lungs above lungs: it seems to hold two scans; give one")
    if shape.width < MIN_WIDTH and columns < MAX_CROPPED:
        return [
            *lines,
            "the body is deeper than wide: rows and columns may be exchanged, or the patient lay on the side",
        ]
    is_short = shape.height < HEIGHT[0] and shape.cut_off < MAX_WHOLE
    if shape.valley >= MAX_VALLEY and (is_short or (shape.height > HEIGHT[1] and columns < MAX_CROPPED)):
        lines.append(f"the lungs are {shape.height:.2f} times as high as wide: the distance of the slices may be wrong")
    if shape.taper > MAX_TAPER and shape.cut_off <= MAX_CUT_OFF:
        lines.append("the lungs taper towards the feet: it may be upside down, against its affine")
    if shape.back < MIN_BACK:
        lines.append("the spine seems to be in front: it may be flipped front to back, or prone, against its affine")
    if TURNED_DEGREES[0] <= abs(shape.turned) <= TURNED_DEGREES[1]:
        lines.append(
            f"the body is turned by {abs(shape.turned):.0f} degrees in its slices: they may have been rotated, or the "
            "patient lay on the side"
        )
    if not lines and shape.cut_off <= MAX_CUT_OFF and _is_mirrored(chest.mask, chest):
        lines.append(
            "heart and aorta seem to lie on the right: it may be flipped left to right, against its affine, or the "
            "patient has a situs inversus"
        )
    return lines


def _measure(hu: np.ndarray, spacing_mm: np.ndarray, lungs: np.ndarray) -> _Shape:
    slice_mm, row_mm, column_mm = spacing_mm
    body = hu > TISSUE_ABOVE_HU
    rows, num_rows = label_parts(np.asarray(lungs.any(axis=(0, 2))))
    lungs = lungs & (rows == num_rows.argmax())[:, None]  # without foam of a table, which may pass for lung
    whole = lungs.sum(axis=(1, 2))
    found = np.flatnonzero(whole > MIN_AREA_SHARE * whole.max())
    part = slice(found[0], found[-1] + 1)
    lungs, areas = lungs[part], whole[part]
    fifth, third = max(1, round(len(lungs) / 5)), len(lungs) // 3
    middle = body[part][third : len(lungs) - third]
    column = np.average(np.arange(body.shape[2]), weights=middle.sum(axis=(0, 1)))
    taper = _taper(lungs, round(column))
    end = lungs[:fifth] if taper < 1 else lungs[-fifth:]
    base, centre = (np.average(np.arange(lungs.shape[1]), weights=some.sum(axis=(0, 2))) for some in (end, lungs))
    below, above = np.maximum.accumulate(areas), np.maximum.accumulate(areas[::-1])[::-1]
    midline = hu[part, :, max(0, round(column - MIDLINE_MM / column_mm)) : round(column + MIDLINE_MM / column_mm) + 1]
    return _Shape(
        ends=(_share_at_ends(body, 0), _share_at_ends(body, 1), _share_at_ends(body, 2)),
        width=middle.any(axis=1).sum() * column_mm / (middle.any(axis=2).sum() * row_mm),
        taper=taper,
        cut_off=max(whole[0], whole[-1]) / whole.max(),
        height=len(lungs) * slice_mm / (lungs.any(axis=(0, 1)).sum() * column_mm),
        valley=float((areas / np.minimum(below, above)).min()),
        back=_bone_behind(midline, lungs, row_mm) + (base - centre) * row_mm / BASE_MM,
        turned=_turned_degrees(lungs[third : len(lungs) - third], middle, spacing_mm),
    )


def _turned_degrees(lungs: np.ndarray, body: np.ndarray, spacing_mm: np.ndarray) -> float:
    angles = sorted((_axis_degrees(part.sum(axis=0), spacing_mm) for part in (lungs, body)), key=abs)
    return angles[0] if angles[0] * angles[1] > 0 and abs(angles[1] - angles[0]) <= MAX_TURNED_APART else 0.0


def _axis_degrees(weights: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Return the angle between the rows and the longest axis of a picture (row, column), from -90 to 90."""
    row, column = np.nonzero(weights)
    position_mm = np.stack([column * spacing_mm[2], row * spacing_mm[1]])
    axis = np.linalg.eigh(np.cov(position_mm, aweights=weights[row, column]))[1][:, -1]
    return float((np.degrees(np.arctan2(axis[1], axis[0])) + 90) % 180 - 90)


def _taper(lungs: np.ndarray, column: int) -> float:
    """Return the taper of the lungs on both sides of a column; see `_Shape`."""
    tapers = []
    for lung in (lungs[:, :, :column][:, :, ::-1], lungs[:, :, column:]):
        areas = lung.sum(axis=(1, 2))
        if areas.sum() >= MIN_LUNG_SHARE * np.count_nonzero(lungs):
            found = np.flatnonzero(areas > MIN_AREA_SHARE * areas.max())
            fifth = max(1, round((found[-1] + 1 - found[0]) / 5))
            lower, upper = (
                np.flatnonzero(lung[start : start + fifth].any(axis=(0, 1)))[-1] + 1
                for start in (found[0], found[-1] + 1 - fifth)
            )
            tapers.append(upper / lower)
    return float(np.exp(np.mean(np.log(tapers))))


def _is_mirrored(lungs: np.ndarray, chest: LungSegmentation) -> bool:
    """Return whether heart and descending aorta lie on the right of the spine: both, as disease of a lung moves one."""
    hu, (_, row_mm, column_mm) = chest.hu, chest.spacing_mm
    if max(row_mm, column_mm) > MAX_PIXEL_MM:
        return False
    areas = lungs.sum(axis=(1, 2))
    found = np.flatnonzero(areas > MIN_AREA_SHARE * areas.max())
    first, height = found[0], found[-1] + 1 - found[0]
    spine = _find_spine(hu[first + height // 3 : first + height - height // 3], lungs, row_mm, column_mm)
    reach, inner, outer = (round(length / column_mm) for length in (HEART_MM, *AORTA_MM))
    if spine is None or not reach <= spine[0] < hu.shape[2] - reach:
        return False
    column, front = spine
    at_heart, at_aorta = (slice(first + int(a * height), first + int(b * height)) for a, b in (HEART_AT, AORTA_AT))
    tissue = ~lungs & (hu > HEART_ABOVE_HU)
    in_front = lungs[at_heart, :front]
    right, left = np.logical_or.accumulate(in_front, 2), np.logical_or.accumulate(in_front[:, :, ::-1], 2)[:, :, ::-1]
    heart = (tissue[at_heart, :front] & right & left).sum(axis=(0, 1))
    on_right, on_left = heart[column - reach : column].sum(), heart[column + 1 : column + 1 + reach].sum()
    depth = round(AORTA_DEPTH_MM / row_mm)
    aorta = tissue[at_aorta, max(0, front - depth) : front + depth].mean(axis=1)
    excess = aorta[:, column - outer : column - inner].mean(axis=1) - aorta[
        :, column + 1 + inner : column + 1 + outer
    ].mean(axis=1)
    has_aorta = np.median(excess) > MIN_AORTA and (excess > 0).mean() >= MIN_AORTA_SLICES
    return bool(has_aorta and on_right - on_left > MIN_HEART * (on_right + on_left))


def _find_spine(hu: np.ndarray, lungs: np.ndarray, row_mm: float, column_mm: float) -> tuple[int, int] | None:
    """Find the middle column of the spine and the row of its front; None without bone behind the lungs' middle."""
    body = (hu > TISSUE_ABOVE_HU).sum(axis=(0, 1))
    row = int(np.average(np.arange(hu.shape[1]), weights=lungs.sum(axis=(0, 2))))
    reach = round(SPINE_MM / column_mm)
    first = max(0, int(np.average(np.arange(len(body)), weights=body)) - reach)
    bone = hu[:, row:, first : first + 2 * reach + 1] > SPINE_ABOVE_HU
    by_row, by_column = bone.sum(axis=(0, 2)), bone.sum(axis=(0, 1))
    if by_row.sum() <= MIN_SPINE_VOXELS:
        return None
    column = first + float(np.average(np.arange(len(by_column)), weights=by_column))
    return round(column), row + int(np.searchsorted(np.cumsum(by_row), SPINE_FRONT * by_row.sum()))


def _share_at_ends(body: np.ndarray, axis: int) -> float:
    areas = body.sum(axis=tuple({0, 1, 2} - {axis}))
    return float(min(areas[:2].max(), areas[-2:].max()) / areas.max())


def _bone_behind(midline: np.ndarray, lungs: np.ndarray, row_mm: float) -> float:
    """Compare the bone in front of the lungs and behind: from -1, all in front, to 1, all behind."""
    rows = np.flatnonzero(lungs.any(axis=(0, 2)))
    bone = (midline > BONE_ABOVE_HU).sum(axis=(0, 2))
    outer = round(OUTER_MM / row_mm)
    front, behind = bone[: rows[0] + outer].sum(), bone[max(0, rows[-1] + 1 - outer) :].sum()
    return float((behind - front) / max(1, behind + front))
