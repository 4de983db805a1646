"""Where the lungs are: a box that also holds what is too dense to look like lung."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.resize import resize

if TYPE_CHECKING:
    from tfds_mosmed.scans.scan import Scan  # imports nibabel, which an exported model does not need

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
CLOSED_MM = 8.0  # to each side: vessels and small consolidations count as lung, heart and diaphragm do not
CROPPED_WALL_MM = 5.0  # as MIN_WALL_MM, where a record's box may have cut off a part of the wall
DIRECTIONS = 32  # in which the outline is known
_OPPOSITE = (DIRECTIONS // 2 - np.arange(DIRECTIONS)) % DIRECTIONS  # each direction as a mirror shows it
BONE_ABOVE_HU = 150  # in voxels that hold more than a rib
RIBS_WITHIN_MM = 40.0  # of the outline of what is aerated, which lies as far in as the lung behind it is white
RIBS_MARGIN_MM = 6.0
LUNGS_MARGIN_MM = 10.0  # where no rib is near, as behind the sternum's ends


class LungFinding(NamedTuple):
    """What is odd about the lungs of a study.

    Attributes:
      code: "no_lungs" or "lungs_cut_off".
      seen: the same in a line for people.
    """

    code: str
    seen: str


class LungBox(NamedTuple):
    """Where to look.

    Attributes:
      box: of the scan's voxels, (slice, row, column).
      found: whether it is the lungs' box; otherwise the body's, or all of the field of view.
      oddities: what is odd.
    """

    box: Box
    found: bool
    oddities: tuple[LungFinding, ...]


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
        odd = LungFinding("no_lungs", f"no lungs found: cropped to the {what}")
        return LungBox(_to_voxels(box, shape, hu.shape), False, (odd,))
    box = _with_margin(_mirrored(_extent(lungs, coarse_mm), coarse), coarse_mm)
    return LungBox(_to_voxels(box, shape, hu.shape), True, _cut_off(lungs))


def first_with_lungs(scans: Iterator["Scan"]) -> "Scan":
    """Choose the first scan with lungs, or the very first if none has."""
    first = next(scans)
    for scan in itertools.chain([first], scans):
        if find_lungs(scan.hu, scan.spacing_mm).found:
            return scan
    return first


def _coarse_grid(
    shape: tuple[int, ...], spacing_mm: Sequence[float], coarse_mm: float = COARSE_MM
) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """Shape of the coarse copy, and which voxels are enough to make it: at least two for each of its own."""
    coarse = [max(1, min(size, round(size * step / coarse_mm))) for size, step in zip(shape, spacing_mm, strict=True)]
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


def _lung_mask(coarse: np.ndarray, spacing: np.ndarray, min_wall_mm: float = MIN_WALL_MM) -> np.ndarray | None:
    aerated = (coarse > LUNG_HU[0]) & (coarse < LUNG_HU[1])
    # Opening cuts thin bridges, and takes away the rims of half gas, half tissue around free gas.
    parts = _parts(_opened(aerated) if spacing[1:].max() <= MAX_OPENED_MM else aerated)
    litres = parts.sizes * spacing.prod() / 1e6
    wanted = litres >= MIN_PART_LITRES
    walls = _walls(coarse)
    for part in np.flatnonzero(wanted):
        wanted[part] = np.median(walls[parts.labels == part]) * spacing[1] >= min_wall_mm
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


def _cut_off(lungs: np.ndarray) -> tuple[LungFinding, ...]:
    areas = lungs.sum(axis=(1, 2))
    edge = lungs[:, [0, -1]].sum() + lungs[:, 1:-1, [0, -1]].sum()
    seen = []
    if max(areas[0], areas[-1]) > CUT_OFF_AREA * areas.max():
        seen.append("the lungs seem to be cut off at the first or last slice")
    if edge > CUT_OFF_EDGE_SHARE * lungs.sum():
        seen.append("the lungs reach the edge of the field of view")
    return tuple(LungFinding("lungs_cut_off", line) for line in seen)


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


class Aerated(NamedTuple):
    """What is aerated in a volume, on a coarse copy of it.

    Attributes:
      hu: float32 (slice, row, column), the copy; what lies in front of or behind all tissue is -1024.
      spacing_mm: (3,), of its voxels.
      lungs: bool like `hu`, without what is denser in them; None where no lungs are found.
    """

    hu: np.ndarray
    spacing_mm: np.ndarray
    lungs: np.ndarray | None


def aerated(volume: np.ndarray, spacing_mm: Sequence[float], coarse_mm: float = COARSE_MM) -> Aerated:
    """Find the aerated part of the lungs.

    Args:
      volume: HU (slice, row, column), of a scan or of a record.
      spacing_mm: along the same axes.
      coarse_mm: voxels of the copy that is searched, where the volume's own are not larger.
    """
    shape, thinned = _coarse_grid(volume.shape, spacing_mm, coarse_mm)
    coarse = resize(volume[thinned], shape, -1024, 500)
    spacing = np.array(spacing_mm) * volume.shape / shape
    # Blankets and foam may touch the lungs of thin patients in a coarse copy.
    coarse[_walls(coarse) == 0] = -1024
    return Aerated(coarse, spacing, _lung_mask(coarse, spacing, CROPPED_WALL_MM))


class LungRegion(NamedTuple):
    """Where the lungs are in a volume.

    Attributes:
      lungs: bool (slice, row, column), what looks like lung, with vessels and what else is narrow within it.
      thorax: bool (row, column), the lungs and the ribs around them as seen along the body, at their widest.
    """

    lungs: np.ndarray
    thorax: np.ndarray


def lung_region(volume: np.ndarray, spacing_mm: Sequence[float]) -> LungRegion | None:
    """Find the lungs in a volume, and a cylinder around them that hardly depends on how diseased they are.

    Consolidated lung looks like muscle, so a mask of what is aerated shrinks with disease, and its outline gives the
    disease away. The cylinder does not shrink: it is convex, goes through all slices at the lungs' widest, is as wide
    on both sides of the body's middle, and holds the ribs, which stay where they are when a lung turns white.

    Args:
      volume: HU (slice, row, column), of a scan or of a record.
      spacing_mm: along the same axes.

    Returns:
      The region, or None where no lungs are found.
    """
    coarse, coarse_mm, lungs = aerated(volume, spacing_mm)
    if lungs is None:
        return None
    closed = _closed(lungs, [round(CLOSED_MM / step) for step in coarse_mm[1:]])
    nearest = [np.arange(size) * of // size for size, of in zip(volume.shape, coarse.shape, strict=True)]
    return LungRegion(
        closed[nearest[0]][:, nearest[1]][:, :, nearest[2]],
        _within(_thorax(lungs, coarse, coarse_mm[1:]), volume.shape[1:], spacing_mm[1:]),
    )


def _closed(mask: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Close a mask in the slice with a box that reaches some pixels to each side."""
    closed = mask.view(np.uint8)
    for operation in (ndimage.maximum_filter1d, ndimage.minimum_filter1d):
        for axis, pixels in zip((1, 2), reach, strict=True):
            closed = operation(closed, 2 * pixels + 1, axis=axis)
    return closed.view(np.bool_)


def _thorax(lungs: np.ndarray, coarse: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Support function of the thorax as seen along the body: how far it reaches in each of `_directions`, in mm."""
    slices = lungs.any(axis=(1, 2))
    reach = _directions() @ _centres(coarse.shape[1:], spacing)
    reach = reach.reshape(-1, *coarse.shape[1:])
    mirrored = 2 * _middle(coarse[slices]) * spacing[1] * _directions()[:, 1]

    def supports(pixels: np.ndarray, margin: float) -> np.ndarray:
        own = reach[:, pixels].max(axis=1, initial=-np.inf)
        return np.maximum(own, own[_OPPOSITE] + mirrored) + margin

    outline = supports(np.logical_or.reduce(lungs), 0)
    near = np.logical_and.reduce(reach <= outline[:, None, None] + RIBS_WITHIN_MM)
    ribs = near & np.logical_or.reduce(coarse[slices] > BONE_ABOVE_HU)
    return np.maximum(outline + LUNGS_MARGIN_MM, supports(ribs, RIBS_MARGIN_MM))


def _middle(coarse: np.ndarray) -> float:
    """Column halfway between the body's sides, which white lung, unlike the middle of its mass, does not move."""
    silhouette = np.logical_or.reduce(coarse > TISSUE_ABOVE_HU)
    body = silhouette[np.logical_or.reduce(silhouette, axis=1)]
    return float(np.median(body.argmax(axis=1) + body.shape[1] - body[:, ::-1].argmax(axis=1)) / 2)


def _within(supports: np.ndarray, shape: tuple[int, ...], spacing: Sequence[float]) -> np.ndarray:
    """Draw a convex set (row, column) of which the support function is known."""
    reach = _directions() @ _centres(shape, spacing)
    return np.logical_and.reduce(reach <= supports[:, None]).reshape(shape)


def _directions() -> np.ndarray:
    """Unit vectors in the slice: (direction, (row, column))."""
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    return np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _centres(shape: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Centres of pixels in mm from the corner of the slice: ((row, column), pixel)."""
    rows, columns = ((np.arange(size) + 0.5) * step for size, step in zip(shape, spacing, strict=True))
    return np.stack([np.repeat(rows, len(columns)), np.tile(columns, len(rows))])
