"""Regions of a volume that hold the whole lungs, also where they are too dense to look like lung: a box, a cylinder."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_mosmed.preprocessing.anatomy import check_anatomy
from tfds_mosmed.preprocessing.lungs import (
    TISSUE_ABOVE_HU,
    LungSegmentation,
    label_parts,
    open_in_plane,
    segment_lungs,
)
from tfds_mosmed.preprocessing.soft_tissue import check_soft_tissue

Box = tuple[slice, slice, slice]

MIN_SLICE_CM2 = 3.0  # of lung in a slice: more than bronchi and bits of bowel have
MARGIN_MM = (8.0, 12.0, 12.0)
BACK_MARGIN_MM = 20.0  # consolidation and effusion gather at the back
FEET_MARGIN_MM = 16.0  # and at the base, where lung thins out between diaphragm and ribs
# Of the largest slice's lung, in the last slice and in the first. Of 8 real chests and 120 phantoms, whole ones have at
# most 0.02. The feet's is higher, as many scans end in the recess below the domes of the diaphragm: where it holds less
# than 1 % of the lungs' volume it has at most 0.23. An apex that lacks 5 % of the lungs' height is found always, a base
# that lacks 3 % of the volume, some 15 % of the height, in four of five.
CUT_OFF_HEAD, CUT_OFF_FEET = 0.1, 0.25
CUT_OFF_EDGE_SHARE = 0.001
MIN_BODY_SHARE = 0.02  # of the volume
CLOSED_MM = 8.0  # to each side: vessels and small consolidations count as lung, heart and diaphragm do not
DIRECTIONS = 32  # in which the outline of the thorax is known
_OPPOSITE = (DIRECTIONS // 2 - np.arange(DIRECTIONS)) % DIRECTIONS  # each direction, mirrored left to right
BONE_ABOVE_HU = 150  # in voxels that hold more than a rib
RIBS_WITHIN_MM = 40.0  # of the outline of aerated lung, which is further inside if lung near the ribs is white
RIBS_MARGIN_MM = 6.0
LUNGS_MARGIN_MM = 10.0  # where no rib is near, as behind the sternum's ends


class LungFinding(NamedTuple):
    """An unusual finding about the lungs of a study, and what is around them.

    Attributes:
      code: "no_lungs", "lungs_cut_off", "anatomy" or "not_hu".
      message: the finding in a line.
    """

    code: str
    message: str


class LungBox(NamedTuple):
    """The part of a scan to crop to.

    Attributes:
      box: of the scan's voxels, (slice, row, column).
      found: whether it is the lungs' box; otherwise it is the body's, or the whole field of view.
      findings: what is unusual about the lungs.
    """

    box: Box
    found: bool
    findings: tuple[LungFinding, ...]


def find_lung_box(hu: np.ndarray, spacing_mm: Sequence[float]) -> LungBox:
    """Find the box of both lungs, with a margin.

    Diseased lung may be as dense as muscle and be missing from the segmentation. So the box is made as wide on both
    sides of the body's middle, and extends further at the back and at the base.

    Args:
      hu: (slice, row, column).
      spacing_mm: along the same axes.
    """
    chest = segment_lungs(hu, spacing_mm)
    coarse, coarse_mm, lungs = chest
    if lungs is None:
        box, name = _body_box(coarse)
        finding = LungFinding("no_lungs", f"no lungs found: cropped to the {name}")
        return LungBox(_to_voxels(box, coarse.shape, hu.shape), False, (finding, *find_unusual(chest)))
    box = _add_margin(_mirror(_extent(lungs, coarse_mm), coarse), coarse_mm)
    return LungBox(_to_voxels(box, coarse.shape, hu.shape), True, find_unusual(chest))


def find_unusual(chest: LungSegmentation) -> tuple[LungFinding, ...]:
    """Find lungs that are cut off, signs of wrong axes and of two scans in one, and wrong HU of soft tissue.

    Args:
      chest: of a whole scan; without lungs only soft tissue is looked at.
    """
    line = check_soft_tissue(chest)
    of_tissue = (LungFinding("not_hu", line),) if line else ()
    if chest.mask is None:
        return of_tissue
    of_anatomy = (LungFinding("anatomy", line) for line in check_anatomy(chest))
    return (*_find_cut_off(chest.mask), *of_anatomy, *of_tissue)


def _extent(lungs: np.ndarray, spacing: np.ndarray) -> list[list[int]]:
    """First and last + 1 index of the lungs along each axis, without slices that hold hardly any lung."""
    areas = lungs.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100
    inside = lungs[areas >= MIN_SLICE_CM2]
    profiles = (areas >= MIN_SLICE_CM2, inside.any(axis=(0, 2)), inside.any(axis=(0, 1)))
    return [[int(np.flatnonzero(p)[0]), int(np.flatnonzero(p)[-1]) + 1] for p in profiles]


def _mirror(extent: list[list[int]], coarse: np.ndarray) -> list[list[int]]:
    """Make the box as wide on either side of the body's middle: a lung that is all white is not in the mask."""
    first, last = extent[0]
    tissue = (coarse[first:last] > TISSUE_ABOVE_HU).sum(axis=(0, 1))
    middle = float(np.average(np.arange(len(tissue)) + 0.5, weights=tissue)) if tissue.any() else len(tissue) / 2
    left, right = extent[2]
    half = max(middle - left, right - middle)
    return [extent[0], extent[1], [math.floor(middle - half), math.ceil(middle + half)]]


def _add_margin(extent: list[list[int]], spacing: np.ndarray) -> list[list[int]]:
    margins = [math.ceil(margin / step) for margin, step in zip(MARGIN_MM, spacing, strict=True)]
    box = [[first - margin, last + margin] for (first, last), margin in zip(extent, margins, strict=True)]
    box[0][0] = extent[0][0] - math.ceil(FEET_MARGIN_MM / spacing[0])
    box[1][1] = extent[1][1] + math.ceil(BACK_MARGIN_MM / spacing[1])
    return box


def _find_cut_off(lungs: np.ndarray) -> tuple[LungFinding, ...]:
    areas = lungs.sum(axis=(1, 2))
    edge = lungs[:, [0, -1]].sum() + lungs[:, 1:-1, [0, -1]].sum()
    ends = (("first slice, at the feet", areas[0], CUT_OFF_FEET), ("last slice, at the head", areas[-1], CUT_OFF_HEAD))
    messages = [
        f"the lungs seem to be cut off: the {name}, has {area / areas.max():.0%} of their largest area"
        for name, area, most in ends
        if area > most * areas.max()
    ]
    if edge > CUT_OFF_EDGE_SHARE * lungs.sum():
        messages.append("the lungs reach the edge of the field of view")
    return tuple(LungFinding("lungs_cut_off", message) for message in messages)


def _body_box(coarse: np.ndarray) -> tuple[list[list[int]], str]:
    labels, sizes = label_parts(open_in_plane(coarse > TISSUE_ABOVE_HU))
    if sizes.max() < MIN_BODY_SHARE * coarse.size:
        return [[0, size] for size in coarse.shape], "whole field of view"
    box = ndimage.find_objects(labels)[int(sizes.argmax()) - 1]
    return [[part.start, part.stop] for part in box], "body"


def _to_voxels(box: list[list[int]], coarse: tuple[int, ...], fine: tuple[int, ...]) -> Box:
    ends = [
        slice(max(0, math.floor(first * size / of)), min(size, math.ceil(last * size / of)))
        for (first, last), of, size in zip(box, coarse, fine, strict=True)
    ]
    return (ends[0], ends[1], ends[2])


class LungRegion(NamedTuple):
    """The lungs in a volume, and a cylinder around them.

    Attributes:
      lungs: bool (slice, row, column), aerated lung with vessels and small consolidations in it.
      thorax: bool (row, column), the lungs and the ribs around them as seen along the body, at their widest.
      middle: column halfway between the body's sides, an edge of the columns; the patient's right is before it.
    """

    lungs: np.ndarray
    thorax: np.ndarray
    middle: float


def lung_region(volume: np.ndarray, spacing_mm: Sequence[float]) -> LungRegion | None:
    """Find the lungs in a volume, and a cylinder around them that hardly depends on their disease.

    Consolidated lung looks like muscle, so a mask of aerated lung shrinks with disease, and its outline reveals the
    disease. The cylinder does not shrink: it is convex, extends through all slices at the lungs' widest, is as wide on
    both sides of the body's middle, and includes the ribs, which stay where they are when a lung turns white.

    Args:
      volume: HU (slice, row, column), of a scan or of a record.
      spacing_mm: along the same axes.

    Returns:
      The region, or None if no lungs are found.
    """
    coarse, coarse_mm, lungs = segment_lungs(volume, spacing_mm, cropped=True)
    if lungs is None:
        return None
    closed = close_in_plane(lungs, [round(CLOSED_MM / step) for step in coarse_mm[1:]])
    nearest = [np.arange(size) * of // size for size, of in zip(volume.shape, coarse.shape, strict=True)]
    middle = _middle_column(coarse[lungs.any(axis=(1, 2))])
    return LungRegion(
        closed[nearest[0]][:, nearest[1]][:, :, nearest[2]],
        _draw_convex(_thorax_support(lungs, coarse, coarse_mm[1:], middle), volume.shape[1:], spacing_mm[1:]),
        middle * volume.shape[2] / coarse.shape[2],
    )


def close_in_plane(mask: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Close a mask in the slice with a box that reaches some pixels to each side."""
    closed = mask.view(np.uint8)
    for operation in (ndimage.maximum_filter1d, ndimage.minimum_filter1d):
        for axis, pixels in zip((1, 2), reach, strict=True):
            closed = operation(closed, 2 * pixels + 1, axis=axis)
    return closed.view(np.bool_)


def _thorax_support(lungs: np.ndarray, coarse: np.ndarray, spacing: np.ndarray, middle: float) -> np.ndarray:
    """Compute the support function of the thorax as seen along the body: its reach in mm in each of `_directions`."""
    slices = lungs.any(axis=(1, 2))
    reach = _directions() @ _centres(coarse.shape[1:], spacing)
    reach = reach.reshape(-1, *coarse.shape[1:])
    mirrored = 2 * middle * spacing[1] * _directions()[:, 1]

    def support(pixels: np.ndarray, margin: float) -> np.ndarray:
        own = reach[:, pixels].max(axis=1, initial=-np.inf)
        return np.maximum(own, own[_OPPOSITE] + mirrored) + margin

    outline = support(np.logical_or.reduce(lungs), 0)
    near = np.logical_and.reduce(reach <= outline[:, None, None] + RIBS_WITHIN_MM)
    ribs = near & np.logical_or.reduce(coarse[slices] > BONE_ABOVE_HU)
    return np.maximum(outline + LUNGS_MARGIN_MM, support(ribs, RIBS_MARGIN_MM))


def _middle_column(coarse: np.ndarray) -> float:
    """Compute the column halfway between the body's sides; unlike the centre of mass, white lung does not move it."""
    silhouette = np.logical_or.reduce(coarse > TISSUE_ABOVE_HU)
    body = silhouette[np.logical_or.reduce(silhouette, axis=1)]
    return float(np.median(body.argmax(axis=1) + body.shape[1] - body[:, ::-1].argmax(axis=1)) / 2)


def _draw_convex(support: np.ndarray, shape: tuple[int, ...], spacing: Sequence[float]) -> np.ndarray:
    """Draw the convex set (row, column) that has a support function."""
    reach = _directions() @ _centres(shape, spacing)
    return np.logical_and.reduce(reach <= support[:, None]).reshape(shape)


def _directions() -> np.ndarray:
    """Unit vectors in the slice: (direction, (row, column))."""
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    return np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _centres(shape: tuple[int, ...], spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Centres of pixels in mm from the corner of the slice: ((row, column), pixel)."""
    rows, columns = ((np.arange(size) + 0.5) * step for size, step in zip(shape, spacing, strict=True))
    return np.stack([np.repeat(rows, len(columns)), np.tile(columns, len(rows))])
