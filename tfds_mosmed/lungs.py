"""Where the lungs are: a box that also holds what is too dense to look like lung."""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_mosmed.resize import resize

Box = tuple[slice, slice, slice]

COARSE_MM = 3.0  # voxels of the copy that is searched; finer ones only cost time
# Between free gas in windpipe, stomach and bowel, and soft tissue (Hu et al., IEEE TMI 2001, find -400 to -500).
LUNG_HU = (-970, -400)
TISSUE_ABOVE_HU = -300
MIN_PART_LITRES = 0.1
MIN_PART_SHARE = 0.1  # of the largest part: a lung cut in two by a consolidation counts, a bronchus does not
# Of tissue before and behind a lung. The air around the body, between blankets and under a table has none on one side,
# the foam of a table no more than a thin shell.
MIN_WALL_MM = 9.0
MAX_OPENED_MM = 4.0  # opening coarser pixels would take away lung between vessels
LUNG_LITRES = (0.6, 12.0)
MIN_BOX_MM = (60.0, 60.0, 70.0)  # (slice, row, column); one lung alone is wider
MIN_SLICE_CM2 = 3.0  # of lung in a slice: more than bronchi and bits of bowel have
MARGIN_MM = (8.0, 12.0, 12.0)
BACK_MARGIN_MM = 20.0  # consolidation and effusion gather at the back
FEET_MARGIN_MM = 16.0  # and at the base, where lung thins out between diaphragm and ribs
CUT_OFF_AREA = 0.4  # of the largest slice's lung, in the first or last slice
CUT_OFF_EDGE_SHARE = 0.001


class LungBox(NamedTuple):
    """Where to look.

    Attributes:
      box: of the scan's voxels, (slice, row, column).
      found: whether it is the lungs' box; otherwise the body's, or all of the field of view.
      warnings: what is odd, a line each.
    """

    box: Box
    found: bool
    warnings: tuple[str, ...]


def find_lungs(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> LungBox:
    """Find the box of both lungs, with a margin.

    Threshold, components and plain anatomy on a coarse copy. Diseased lung may be as dense as muscle, so it is the box
    that counts, not the mask: it is made as wide on both sides of the body's middle, and reaches further at the back.

    Args:
      hu: (slice, row, column).
      spacing_mm: along the same axes.
    """
    shape, thinned = _coarse_grid(hu.shape, spacing_mm)
    coarse = resize(hu[thinned], shape, -1024, 500)
    coarse_mm = np.array(spacing_mm) * hu.shape / shape
    lungs = _lung_mask(coarse, coarse_mm)
    if lungs is None:
        box, what = _body_box(coarse)
        return LungBox(_to_voxels(box, shape, hu.shape), False, (f"no lungs found: cropped to the {what}",))
    warnings = _cut_off(lungs)
    box = _with_margin(_mirrored(_extent(lungs, coarse_mm), coarse), coarse_mm)
    return LungBox(_to_voxels(box, shape, hu.shape), True, warnings)


def _coarse_grid(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """Shape of the coarse copy, and which voxels are enough to make it: at least two for each of its own."""
    coarse = [max(1, min(size, round(size * step / COARSE_MM))) for size, step in zip(shape, spacing_mm, strict=True)]
    steps = [max(1, size // (2 * new)) for size, new in zip(shape, coarse, strict=True)]
    thinned = [slice(step // 2, None, step) for step in steps]
    return (coarse[0], coarse[1], coarse[2]), (thinned[0], thinned[1], thinned[2])


class _Parts(NamedTuple):
    """Connected parts of a mask; part 0 is what is in none of them."""

    labels: np.ndarray  # (slice, row, column)
    sizes: np.ndarray  # (part,) voxels, 0 for part 0

    def only(self, wanted: np.ndarray) -> np.ndarray:
        """Mask of the wanted (part,) parts."""
        return (wanted & (self.sizes > 0))[self.labels]


def _parts(mask: np.ndarray) -> _Parts:
    labels, count = ndimage.label(mask)  # type: ignore[misc]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return _Parts(labels, sizes)


def _opened(mask: np.ndarray) -> np.ndarray:
    """Open a mask in the slice with a cross of five pixels; ten times as fast as SciPy's binary_opening."""
    eroded = np.zeros_like(mask)
    inner = mask[:, 1:-1, 1:-1]
    eroded[:, 1:-1, 1:-1] = inner & mask[:, :-2, 1:-1] & mask[:, 2:, 1:-1] & mask[:, 1:-1, :-2] & mask[:, 1:-1, 2:]
    opened = eroded.copy()
    opened[:, 1:] |= eroded[:, :-1]
    opened[:, :-1] |= eroded[:, 1:]
    opened[:, :, 1:] |= eroded[:, :, :-1]
    opened[:, :, :-1] |= eroded[:, :, 1:]
    return opened


def _lung_mask(coarse: np.ndarray, spacing: np.ndarray) -> np.ndarray | None:
    aerated = (coarse > LUNG_HU[0]) & (coarse < LUNG_HU[1])
    # Opening cuts thin bridges, and takes away the rims of half gas, half tissue around free gas.
    parts = _parts(_opened(aerated) if spacing[1:].max() <= MAX_OPENED_MM else aerated)
    litres = parts.sizes * spacing.prod() / 1e6
    wanted = litres >= MIN_PART_LITRES
    walls = _walls(coarse)
    for part in np.flatnonzero(wanted):
        wanted[part] = np.median(walls[parts.labels == part]) * spacing[1] >= MIN_WALL_MM
    if not wanted.any():
        return None
    wanted &= litres >= MIN_PART_SHARE * litres[wanted].max()
    lungs = parts.only(wanted)
    size = np.array([lungs.any(axis=others).sum() for others in ((1, 2), (0, 2), (0, 1))]) * spacing
    plausible = LUNG_LITRES[0] <= litres[wanted].sum() <= LUNG_LITRES[1] and (size >= MIN_BOX_MM).all()
    return lungs if plausible else None


def _walls(coarse: np.ndarray) -> np.ndarray:
    """Count the pixels of tissue before or behind each pixel, whichever are fewer."""
    before = np.cumsum(coarse > TISSUE_ABOVE_HU, axis=1, dtype=np.int16)
    return np.minimum(before, before[:, -1:] - before)


def _extent(lungs: np.ndarray, spacing: np.ndarray) -> list[list[int]]:
    """First and last + 1 index of the lungs along each axis, slices with hardly any left out."""
    areas = lungs.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100
    inside = lungs[areas >= MIN_SLICE_CM2]
    profiles = (areas >= MIN_SLICE_CM2, inside.any(axis=(0, 2)), inside.any(axis=(0, 1)))
    return [[int(np.flatnonzero(p)[0]), int(np.flatnonzero(p)[-1]) + 1] for p in profiles]


def _mirrored(extent: list[list[int]], coarse: np.ndarray) -> list[list[int]]:
    """Make the box as wide on either side of the body's middle: a lung that is all white is not in the mask."""
    first, last = extent[0]
    tissue = (coarse[first:last] > TISSUE_ABOVE_HU).sum(axis=(0, 1))
    middle = float(np.average(np.arange(len(tissue)) + 0.5, weights=tissue)) if tissue.any() else len(tissue) / 2
    left, right = extent[2]
    half = max(middle - left, right - middle)
    return [extent[0], extent[1], [math.floor(middle - half), math.ceil(middle + half)]]


def _with_margin(extent: list[list[int]], spacing: np.ndarray) -> list[list[int]]:
    margins = [math.ceil(margin / step) for margin, step in zip(MARGIN_MM, spacing, strict=True)]
    box = [[first - margin, last + margin] for (first, last), margin in zip(extent, margins, strict=True)]
    box[0][0] = extent[0][0] - math.ceil(FEET_MARGIN_MM / spacing[0])
    box[1][1] = extent[1][1] + math.ceil(BACK_MARGIN_MM / spacing[1])
    return box


def _cut_off(lungs: np.ndarray) -> tuple[str, ...]:
    areas = lungs.sum(axis=(1, 2))
    edge = lungs[:, [0, -1]].sum() + lungs[:, 1:-1, [0, -1]].sum()
    warnings = []
    if max(areas[0], areas[-1]) > CUT_OFF_AREA * areas.max():
        warnings.append("the lungs seem to be cut off at the first or last slice")
    if edge > CUT_OFF_EDGE_SHARE * lungs.sum():
        warnings.append("the lungs reach the edge of the field of view")
    return tuple(warnings)


def _body_box(coarse: np.ndarray) -> tuple[list[list[int]], str]:
    parts = _parts(_opened(coarse > TISSUE_ABOVE_HU))
    if parts.sizes.max() < 0.02 * coarse.size:
        return [[0, size] for size in coarse.shape], "whole field of view"
    box = ndimage.find_objects(parts.labels)[int(parts.sizes.argmax()) - 1]
    return [[part.start, part.stop] for part in box], "body"


def _to_voxels(box: list[list[int]], coarse: tuple[int, ...], fine: tuple[int, ...]) -> Box:
    ends = [
        slice(max(0, math.floor(first * size / of)), min(size, math.ceil(last * size / of)))
        for (first, last), of, size in zip(box, coarse, fine, strict=True)
    ]
    return (ends[0], ends[1], ends[2])
