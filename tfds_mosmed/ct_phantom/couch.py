"""Surroundings of the patient: air, couches, boards, mattresses, blankets, and metal with its streaks.

The couches are those of diagnostic scanners (curved or flat, with and without a mattress) and of scanners for planning
radiotherapy (flat, with an inclined breast board), as in LIDC-IDRI, COVID-CT-MD and NSCLC-Radiomics.
"""

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition, background
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.scanner import Scanner

METAL_HU = 3000.0
STREAK_HU = 420.0  # next to a piece of metal of 3 mm
AIR_HU = -1000.0


class Surroundings:
    """Surroundings of the body in each plane."""

    def __init__(self, scanner: Scanner, scan: Acquisition, wall: ChestWall, subject: Subject, rng):
        self.scan, self.slope = scan, 0.0
        if scanner.couches is None:
            self.image = background(scan, rng, wall.back_of_body)
            return
        kind = rng.choice(list(scanner.couches), p=list(scanner.couches.values()))
        if kind in ("flat", "board"):
            self.image = _flat_couch(scan, wall.back_of_body + (35 if kind == "board" else 0), rng)
        else:
            self.image = background(scan, rng, wall.back_of_body + (12 if kind == "mattress" else 0))
        if kind == "board":
            _add_board(self.image, scan, wall.back_of_body + 3, rng)
            self.slope = float(rng.uniform(0, 0.08))
        if kind == "mattress":
            _add_mattress(self.image, scan, wall.back_of_body, rng)
        if rng.random() < 0.4:
            _add_blanket(self.image, scan, wall, subject, rng)

    def at(self, plane: int) -> np.ndarray:
        """Return a new image of a plane without the body, (row, column) HU; an inclined board rises with height."""
        if not self.slope:
            return self.image.copy()
        rows = round(self.slope * float(self.scan.z[plane] - self.scan.z[-1]) / self.scan.pixel)
        image = np.full_like(self.image, AIR_HU)  # rows is 0 or less: the last plane is the highest
        image[-rows:] = self.image[: len(image) + rows]
        return image


def _line(distance: np.ndarray, scan: Acquisition, half_width: float) -> np.ndarray:
    """Return the cover of a thin sheet."""
    soft = scan.resolution + half_width
    return np.clip(1.1 - np.abs(distance) / soft, 0, 1).astype(np.float32) * np.float32(min(1, 2 * half_width / soft))


def _flat_couch(scan: Acquisition, top: float, rng) -> np.ndarray:
    """Return air and a flat couch of foam between two sheets of carbon fibre."""
    y, x = scan.y[:, None] - np.float32(top + rng.uniform(2, 6)), scan.x[None, :] - np.float32(rng.normal(0, 6))
    thick, half = rng.uniform(18, 60), rng.uniform(195, 265)
    box = np.maximum(np.maximum(-y, y - thick), np.abs(x) - half)
    image = np.full((scan.matrix, scan.matrix), AIR_HU, np.float32)
    image += np.clip(0.5 - box / 2, 0, 1) * np.float32(rng.uniform(20, 90))
    image += _line(box, scan, rng.uniform(0.6, 1.6)) * np.float32(rng.uniform(500, 1100))
    return image


def _add_board(image: np.ndarray, scan: Acquisition, top: float, rng) -> None:
    """Add a board of plastic under the back with slots, and an arm rest's frame."""
    y, x = scan.y[:, None] - np.float32(top), scan.x[None, :]
    board = np.maximum(np.maximum(-y, y - rng.uniform(8, 18)), np.abs(x) - rng.uniform(150, 240))
    image += _line(board, scan, rng.uniform(0.8, 2.0)) * np.float32(rng.uniform(600, 1100))
    slots = np.abs(np.mod(x, rng.uniform(35, 70)) - 15) - 4
    image += _line(np.maximum(slots, np.abs(y + 4) - 3), scan, 0.8) * np.float32(rng.uniform(200, 900))


def _add_mattress(image: np.ndarray, scan: Acquisition, back: float, rng) -> None:
    """Add foam that the back rests in, with creases of its cover."""
    x = scan.x[None, :]
    wave = sum(rng.uniform(0.5, 3) * np.sin(x / rng.uniform(12, 50) + rng.uniform(0, 6)) for _ in range(3))
    top = back - 4 - rng.uniform(0.0006, 0.0016) * x**2 + wave
    depth = scan.y[:, None] - top
    image += np.clip(0.5 + depth / 3, 0, 1) * np.clip(0.5 + (30 - depth) / 3, 0, 1) * np.float32(rng.uniform(15, 60))
    image += _line(depth, scan, 0.5) * np.float32(rng.uniform(150, 600))
    np.minimum(image, 300, out=image)


def _add_blanket(image: np.ndarray, scan: Acquisition, wall: ChestWall, s: Subject, rng) -> None:
    """Add folds of cloth over and beside the body; the body hides what would be inside it."""
    y, x = scan.y[:, None], scan.x[None, :]
    angle = np.arctan2(y, x)
    radius = np.hypot(x / (s.half_width + s.fat + 34), y / (s.half_depth + s.fat + 26))
    for _ in range(rng.integers(1, 6)):
        wave = sum(rng.uniform(0, 0.05) * np.sin(n * angle + rng.uniform(0, 6)) for n in (2, 3, 7, 11, 19))
        fold = (radius - 1 - rng.uniform(0.0, 0.3) - wave) * np.float32(s.half_width)
        fold = np.where(y < rng.uniform(-60, 80), fold, 60)
        image += _line(fold.astype(np.float32), scan, 0.4) * np.float32(rng.uniform(150, 700))
    np.minimum(image, 900, out=image)


class Metal:
    """Metal in or on the patient: wires of electrodes, a pacemaker, clips, wires of a sternotomy, rods of the spine."""

    def __init__(self, scanner: Scanner, scan: Acquisition, wall: ChestWall, subject: Subject, rng):
        self.scan = scan
        self.pieces: list[tuple[np.ndarray, np.ndarray, float]] = []  # start, end (z, y, x) mm; radius
        if not scanner.metal or rng.random() >= scanner.metal:
            return
        h, w, d = subject.lung_height, subject.half_width, subject.half_depth
        kind = rng.choice(["electrodes", "pacemaker", "sternotomy", "clips", "rods"], p=[0.35, 0.2, 0.2, 0.15, 0.1])
        if kind == "electrodes":
            for _ in range(rng.integers(2, 6)):
                z0, x0 = rng.uniform(0.1, 1.0) * h, rng.uniform(-0.8, 0.8) * w
                self._add(
                    (z0, -d - subject.fat - 24, x0), (z0 + rng.normal(0, 60), -d - subject.fat - 26, x0 + 30), 1.1
                )
        elif kind == "pacemaker":
            self._add((0.86 * h, -d - 14, 0.6 * w), (0.80 * h, -d - 14, 0.6 * w), 7)
            self._add((0.86 * h, -0.6 * d, 0.4 * w), (0.92 * h, -0.4 * d, -22), 0.9)
            self._add((0.92 * h, -0.4 * d, -22), (0.38 * h, -0.5 * d, rng.uniform(-10, 30)), 0.9)
        elif kind == "sternotomy":
            for u in np.linspace(0.4, 0.85, int(rng.integers(4, 8))):
                y0 = float(np.interp(u * h, scan.z, wall.middle_y - wall.half_depth)) - 8
                self._add((u * h - 3, y0, rng.normal(0, 4)), (u * h + 3, y0, rng.normal(0, 4)), 1.0)
        elif kind == "clips":
            centre = np.array([rng.uniform(0.4, 0.8) * h, rng.uniform(-0.6, 0.2) * d, rng.choice([-1, 1]) * 0.6 * w])
            for _ in range(rng.integers(3, 10)):
                start = centre + rng.normal(0, 14, 3)
                self._add(start, start + rng.normal(0, 3, 3), 0.9)
        else:
            y0 = float(np.median(wall.spine_y)) + 26
            for side in (-20, 20):
                self._add((rng.uniform(-0.3, 0.3) * h, y0, side), (rng.uniform(0.5, 1.0) * h, y0, side), 2.8)

    def _add(self, start, end, radius: float) -> None:
        self.pieces.append((np.asarray(start, float), np.asarray(end, float), radius))

    def draw(self, plane: int, image: np.ndarray) -> None:
        """Draw the metal that crosses a plane with its streaks into the image, in place."""
        z = float(self.scan.z[plane])
        reach = 0.5 * self.scan.slab + 0.5
        for start, end, radius in self.pieces:
            low, high = min(start[0], end[0]) - reach - radius, max(start[0], end[0]) + reach + radius
            if not low <= z <= high:
                continue
            along = np.clip((z - start[0]) / (end[0] - start[0]), 0, 1) if end[0] != start[0] else 0.5
            place = start + (end - start) * along
            _star(image, self.scan, place[1], place[2], radius)


def _star(image: np.ndarray, scan: Acquisition, y0: float, x0: float, radius: float) -> None:
    """Add a piece of metal with dark and bright rays, as beam hardening and photon starvation cause."""
    fades = 18 + 8 * radius
    reach = 3.5 * fades
    window = scan.window(y0 - reach, y0 + reach, x0 - reach, x0 + reach)
    part = image[window]
    dy, dx = scan.y[window[0], None] - np.float32(y0), scan.x[None, window[1]] - np.float32(x0)
    distance = np.hypot(dy, dx)
    angle = np.arctan2(dy, dx)
    rays = np.sin(9 * angle + np.float32(y0)) * np.sin(4 * angle + np.float32(x0)) - np.float32(0.25)
    fall = np.exp(distance * np.float32(-1 / fades)) * np.float32(STREAK_HU * min(radius / 3, 1.5))
    part += rays * fall
    cover = np.clip(0.5 + (radius - distance) / scan.resolution, 0, 1)
    part += (METAL_HU - part) * cover
