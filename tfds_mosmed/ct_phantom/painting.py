"""Painting of fields on the coarse grid into pixels: windows, soft edges, blending."""

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition


def blend(image: np.ndarray, cover: np.ndarray, value) -> None:
    """Blend a tissue into the image, in place, by its cover in [0, 1]."""
    step = value - image
    step *= cover
    image += step


def cover_of(distance: np.ndarray, width: float) -> np.ndarray:
    """Return the share of each pixel inside an edge, a signed distance in mm, that is `width` mm soft."""
    out = distance * np.float32(-1 / width)
    out += np.float32(0.5)
    return np.clip(out, 0, 1, out=out)


def box_around(field: np.ndarray, scan: Acquisition, margin: float) -> tuple[slice, slice]:
    """Return the window of pixels around the negative part of a coarse slice."""
    inside = field < margin
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    y, x = scan.coarse_y, scan.coarse_x
    edges = y[rows[0]] - 3, y[rows[-1]] + 3, x[columns[0]] - 3, x[columns[-1]] + 3
    return scan.window(*map(float, edges))


def window_within(
    field: np.ndarray, scan: Acquisition, box, width: float
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the window of pixels within `box` that a structure may reach, in the image and relative to the box."""
    inner = box_around(field, scan, max(3.0, width))
    window = tuple(
        slice(min(max(i.start, b.start), b.stop), max(min(i.stop, b.stop), b.start))
        for i, b in zip(inner, box, strict=True)
    )
    relative = tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(window, box, strict=True))
    return (window[0], window[1]), (relative[0], relative[1])
