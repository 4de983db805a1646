"""Functions that build smooth fields: profiles, signed distances, noise."""

from collections.abc import Mapping

import numpy as np
import scipy.interpolate

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.subject import Subject


def profile(knots: Mapping[float, float], at: np.ndarray) -> np.ndarray:
    """Interpolate {position: value} by a smooth curve that preserves monotony, constant beyond its ends; float32."""
    x = np.array(list(knots))
    curve = scipy.interpolate.PchipInterpolator(x, np.array(list(knots.values())))
    return curve(np.clip(at, x[0], x[-1])).astype(np.float32)


def smooth_union(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Return the union of two signed distances with a fillet of the given radius (polynomial smooth minimum)."""
    h = np.maximum(np.float32(radius) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / radius)


def ellipsoid(z, y, x, centre, axes) -> np.ndarray:
    """Return the approximate signed distance to an ellipsoid; centre and axes in (z, y, x) order."""
    q = ((z - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 + ((x - centre[2]) / axes[2]) ** 2
    return ((np.sqrt(q) - 1) * np.float32(min(axes))).astype(np.float32)


def capsule(z, y, x, start, end, radius: float) -> np.ndarray:
    """Return the signed distance to a capsule between two (z, y, x) points."""
    start, end = np.asarray(start, np.float32), np.asarray(end, np.float32)
    axis = end - start
    along = ((z - start[0]) * axis[0] + (y - start[1]) * axis[1] + (x - start[2]) * axis[2]) / (axis @ axis)
    along = np.clip(along, 0, 1).astype(np.float32)
    dz, dy, dx = (
        z - start[0] - along * axis[0],
        y - start[1] - along * axis[1],
        x - start[2] - along * axis[2],
    )
    return np.sqrt(dz * dz + dy * dy + dx * dx) - np.float32(radius)


def value_noise(rng: np.random.Generator, scan: Acquisition, cell: float) -> np.ndarray:
    """Draw a smooth random field of about unit variance on the scan's coarse grid, with features of `cell` mm.

    Random values on a lattice, interpolated linearly; returns (slice, row, column) float32.
    """
    positions = [(a - a[0]) / cell for a in (scan.z, scan.coarse_y, scan.coarse_x)]
    field = rng.standard_normal([int(p[-1]) + 2 for p in positions], dtype=np.float32)
    for axis in (0, 2, 1):  # rows last: whole rows are fast to copy, and only the last step is on the full grid
        index = positions[axis].astype(np.intp)
        weight = (positions[axis] - index).astype(np.float32)
        weight = weight * weight * (3 - 2 * weight)
        step = np.take(np.diff(field, axis=axis), index, axis)
        step *= weight.reshape([-1 if k == axis else 1 for k in range(3)])
        step += np.take(field, index, axis)
        field = step
    field *= np.float32(1.55)
    return field


def fissure(subject: Subject, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the signed distance to the oblique fissures, mm: negative in the lower lobes, behind and below.

    They fall from three quarters of the height at the back to the front of the diaphragm.
    """
    rise = 0.30 * subject.lung_height / subject.half_depth
    height = z - 0.47 * subject.lung_height - rise * y + 0.1 * np.abs(x)
    return (height / np.hypot(1, rise)).astype(np.float32)
