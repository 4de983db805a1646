"""Acquisition: slices, pixels, kernel, noise, table, and the padding outside the field of view.

The smooth fields of the anatomy (signed distances, densities) are computed on a coarse grid of 3 mm, and interpolated
linearly to the pixels, where edges are drawn as sharp as the kernel allows.
"""

import dataclasses
import functools

import numpy as np
import scipy.fft

from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.scanner import MOSMED, Scanner

COARSE_MM = 3.0
LUNGS_FROM_EDGE_MM = 11.0  # of the field of view; the trunk may be inclined by more than half of that
THICK_MM = 6.0  # slices thicker than this are the mean of two planes, because surfaces run obliquely through them
THIN_MM = 3.5  # slices nearer to each other than this are interpolated between planes, which are drawn less often
REFERENCE_MATRIX = 512


@dataclasses.dataclass(frozen=True)
class Acquisition:
    """Parameters of a scan: geometry in mm in the subject's frame, image quality in HU."""

    matrix: int
    pixel: float
    slices: int
    first_z: float
    centre_x: float
    centre_y: float
    slab: float  # thickness of a slice, less than the distance between slices
    resolution: float  # width of a soft edge in plane, set by kernel and pixel
    breathing: float  # mm of diaphragm motion during the scan
    heartbeat: float  # mm by which the heart's edge moves
    noise: float  # standard deviation in water at the centre of an average body
    noise_blur: float  # correlation length of the noise, mm
    padding: int  # value outside the circular field of view
    circle: float  # radius of that circle, as a share of half the matrix
    gap: float = 8.0  # distance of the slices, mm
    layers: int = 1  # planes that are drawn for each slice and averaged
    every: int = 1  # slices for each plane that is drawn; between planes they are interpolated
    overshoot: float = 0.0  # enhancement of edges by a sharp kernel, as a share of their height
    arms_streaks: float = 0.0  # noise in horizontal streaks through arms beside the body, in standard deviations

    @functools.cached_property
    def z(self) -> np.ndarray:
        """Heights of the planes that are drawn, (plane,) mm; most scans have one for each slice, at its centre."""
        if self.every > 1:
            planes = self.gap * self.every * np.arange(-(-(self.slices - 1) // self.every) + 1)
        else:
            spread = self.slab * (np.arange(self.layers) - (self.layers - 1) / 2)
            planes = (self.gap * np.arange(self.slices)[:, None] + spread).reshape(-1)
        return (self.first_z + planes).astype(np.float32)

    @property
    def plane_gap(self) -> float:
        """Mean distance of the planes, mm."""
        return self.gap * self.every / self.layers

    def planes_of(self, k: int) -> list[tuple[int, float]]:
        """Return the planes that slice k consists of: (index, weight)."""
        if self.every > 1:
            plane, rest = divmod(k, self.every)
            weight = rest / self.every
            return [(plane, 1 - weight), (plane + 1, weight)] if rest else [(plane, 1.0)]
        return [(self.layers * k + layer, 1 / self.layers) for layer in range(self.layers)]

    @functools.cached_property
    def x(self) -> np.ndarray:
        """Positions of the pixel columns, (column,) mm."""
        return ((np.arange(self.matrix) - (self.matrix - 1) / 2) * self.pixel + self.centre_x).astype(np.float32)

    @functools.cached_property
    def y(self) -> np.ndarray:
        """Positions of the pixel rows, (row,) mm."""
        return ((np.arange(self.matrix) - (self.matrix - 1) / 2) * self.pixel + self.centre_y).astype(np.float32)

    @functools.cached_property
    def coarse_x(self) -> np.ndarray:
        """Positions of the coarse grid's columns, which cover every pixel, mm."""
        return _coarse_axis(self.x)

    @functools.cached_property
    def coarse_y(self) -> np.ndarray:
        """Positions of the coarse grid's rows, which cover every pixel, mm."""
        return _coarse_axis(self.y)

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return z, y, x of the coarse grid in mm, shaped to broadcast to (slice, row, column)."""
        return self.z[:, None, None], self.coarse_y[None, :, None], self.coarse_x[None, None, :]

    def window(self, low_y: float, high_y: float, low_x: float, high_x: float) -> tuple[slice, slice]:
        """Return the pixels (rows, columns) in a box given in mm; empty slices if it lies outside the image."""
        rows = np.clip(np.searchsorted(self.y, [low_y, high_y]), 0, self.matrix)
        columns = np.clip(np.searchsorted(self.x, [low_x, high_x]), 0, self.matrix)
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    @functools.cached_property
    def _axis_weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [_weights(self.y, self.coarse_y), _weights(self.x, self.coarse_x)]

    def _weights_of(self, rows: slice, columns: slice) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for rows and columns the coarse ones before them, and their weights of the next."""
        return [(index[w], rest[w]) for (index, rest), w in zip(self._axis_weights, (rows, columns), strict=True)]

    def refine(self, field: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Interpolate a coarse slice (row, column) linearly to the pixels of a window, float32."""
        (i, v), (j, u) = self._weights_of(rows, columns)
        if not len(i) or not len(j):
            return np.empty((len(i), len(j)), np.float32)
        # np.take is several times as fast as indexing by arrays.
        used = field[i[0] : i[-1] + 2]
        left = np.take(used, j, 1)
        across = np.take(used, j + 1, 1)
        across -= left
        across *= u
        across += left
        i = i - i[0]
        out = np.take(across[1:] - across[:-1], i, 0)
        out *= v[:, None]
        out += np.take(across, i, 0)
        return out

    def refine_at(self, field: np.ndarray, at: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the values of `refine` at some pixels of the window, given by their indices in the flat window."""
        (i, v), (j, u) = self._weights_of(rows, columns)
        row, column = np.divmod(at, max(len(j), 1))
        u, v = u[column], v[row]
        flat, first = field.ravel(), i[row] * field.shape[1] + j[column]
        upper, lower = ((flat[k + 1] - flat[k]) * u + flat[k] for k in (first, first + field.shape[1]))
        return (lower - upper) * v + upper


def _coarse_axis(fine: np.ndarray) -> np.ndarray:
    count = int(np.ceil((fine[-1] - fine[0]) / COARSE_MM)) + 2
    return (fine[0] - 0.5 * COARSE_MM + COARSE_MM * np.arange(count)).astype(np.float32)


def _weights(fine: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    position = (fine - coarse[0]) / np.float32(COARSE_MM)
    index = position.astype(np.intp)
    return index, (position - index).astype(np.float32)


def sample_acquisition(
    rng: np.random.Generator, subject: Subject, matrix: int, scanner: Scanner = MOSMED
) -> Acquisition:
    """Draw a scan of a subject. Its distribution does not depend on the category."""
    below = rng.uniform(5, 50) if rng.random() < 0.85 else rng.uniform(50, 190)
    above = rng.uniform(12, 45)
    body = 2 * (subject.half_width + 22 + subject.fat)
    view = float(np.clip(body * rng.uniform(*scanner.view_share), *scanner.view_mm))
    view = max(view, 2 * subject.half_width + scanner.view_beyond_lungs_mm)
    sharpness = rng.uniform(*scanner.sharpness_mm)
    pixel = view / matrix
    room = (view - 2 * subject.half_width) / 2 - LUNGS_FROM_EDGE_MM if scanner.view_beyond_lungs_mm > 0 else np.inf
    chances = [chance for _, _, chance in scanner.protocols]
    gap, slab, _ = scanner.protocols[rng.choice(len(chances), p=chances)]
    slices = int(np.clip(np.ceil((subject.lung_height + below + above) / gap), *scanner.slices))
    below = min(below, slices * gap - subject.lung_height - above)  # where the scanner takes no more slices
    layers = 2 if slab > THICK_MM and scanner.draws_whole_slices else 1
    every = int(np.ceil(THIN_MM / gap))
    scan = Acquisition(
        matrix=matrix,
        pixel=pixel,
        slices=slices,
        first_z=-below,
        centre_x=float(np.clip(rng.normal(0, scanner.off_centre_mm), -room, room)),
        centre_y=rng.uniform(-12, 18),
        slab=float(slab) / layers,
        resolution=float(np.hypot(sharpness, pixel)),
        breathing=float(rng.exponential(scanner.breathing_mm)),
        heartbeat=float(min(rng.exponential(1.0), 3.5)),
        noise=float(rng.uniform(*scanner.noise_hu)),
        noise_blur=float(rng.uniform(*scanner.noise_blur_mm)),
        padding=int(rng.choice([-2048, -1024, -3024], p=[0.6, 0.3, 0.1])),
        circle=float(rng.choice([1.0, 1.42], p=[0.7, 0.3])),
        gap=float(gap),
        layers=layers,
        every=every,
    )
    return _with_lung_kernel(scan, scanner, subject, rng)


def _with_lung_kernel(scan: Acquisition, scanner: Scanner, s: Subject, rng: np.random.Generator) -> Acquisition:
    """Return the scan as a sharp kernel and arms beside the body change it, if the scanner has such scans."""
    if scanner.lung_kernel and rng.random() < scanner.lung_kernel:
        scan = dataclasses.replace(
            scan,
            resolution=float(np.hypot(rng.uniform(0.5, 0.8), scan.pixel)),
            overshoot=float(rng.uniform(0.1, 0.6)),
            noise=scan.noise * float(rng.uniform(1.3, 2.5)),
            noise_blur=float(rng.uniform(0.25, 0.45)),
        )
    return dataclasses.replace(scan, arms_streaks=float(rng.uniform(0.3, 1.2))) if s.arms_down else scan


def background(scan: Acquisition, rng: np.random.Generator, back_of_body: float) -> np.ndarray:
    """Return air and the table under the back, (row, column) HU; the same in every slice."""
    image = np.full((scan.matrix, scan.matrix), -1000, np.float32)
    x2 = (scan.x[None, :] - rng.normal(0, 6)) ** 2
    bend = rng.uniform(0.0003, 0.0011)
    top = back_of_body + rng.uniform(2, 8) - bend * x2 + scan.y[:, None] * 0
    depth = scan.y[:, None] - top
    thick = rng.uniform(16, 45)
    bottom = depth - thick + rng.uniform(0.0, 0.0003) * x2
    image += np.where((depth > 0) & (bottom < 0), rng.uniform(20, 110), 0).astype(np.float32)
    width = np.float32(scan.resolution + 0.5)
    for line, hu in ((depth, rng.uniform(300, 900)), (bottom, rng.uniform(300, 1000))):
        image += np.clip(1.2 - np.abs(line) / width, 0, 1).astype(np.float32) * np.float32(hu)
    return image


class Noise:
    """Noise with the power spectrum of a reconstruction kernel, from tiles that are shifted against each other.

    Independent rolls of two tiles per slice cost a hundredth of fresh noise and repeat only after millions of slices.
    One of them has horizontal streaks, as from photon starvation across the shoulders.
    """

    def __init__(self, scan: Acquisition, rng: np.random.Generator):
        self.rng = rng
        size = scan.matrix
        white = rng.standard_normal((2, size, size), dtype=np.float32)
        colour = _noise_colour(scan, size)
        streaks = colour * np.exp(-((scipy.fft.rfftfreq(size, scan.pixel) / 0.03) ** 2)).astype(np.float32)
        spectrum = np.asarray(scipy.fft.rfft2(white)) * np.stack([colour, streaks])
        tiles = np.asarray(scipy.fft.irfft2(spectrum, s=(size, size)))
        tiles /= tiles.std(axis=(1, 2), keepdims=True)
        # The noise level is that of 512 pixels; fewer and larger pixels hold only the low frequencies of the spectrum.
        fine = _noise_colour(scan, REFERENCE_MATRIX)
        share = np.mean(colour**2) * (size / REFERENCE_MATRIX) ** 2 / np.mean(fine**2)
        tiles = (tiles * np.sqrt(share)).astype(np.float32)
        # Twice as large, a tile has every one of its rolls as a view.
        self.size = size
        self.tiles = [np.tile(tile, (2, 2)) for tile in (tiles[0], tiles[0][::-1], tiles[1])]

    def draw(self, streak: float) -> np.ndarray:
        """Draw a slice of noise, (row, column), of unit standard deviation without streaks and more with them."""
        n = self.size
        corners = [n - self.rng.integers(0, n, 2) for _ in range(3)]
        some, others, streaks = (tile[y : y + n, x : x + n] for tile, (y, x) in zip(self.tiles, corners, strict=True))
        noise = some + others
        noise *= np.float32(np.sqrt(0.5))
        if streak > 0.05:
            noise += streaks * np.float32(streak)
        return noise


def _noise_colour(scan: Acquisition, size: int) -> np.ndarray:
    """Return the noise's amplitude spectrum, (row frequency, half of the column frequencies), on a matrix of a size.

    The noise of filtered back-projection is a ramp at low frequencies, cut off by the kernel (Riederer et al. 1978).
    """
    pixel = scan.pixel * scan.matrix / size
    fy = scipy.fft.fftfreq(size, pixel).astype(np.float32)[:, None]
    fx = scipy.fft.rfftfreq(size, pixel).astype(np.float32)[None, :]
    f2 = fx * fx + fy * fy
    return np.sqrt(np.sqrt(f2) + np.float32(0.02)) * np.exp(np.float32(-2 * (np.pi * scan.noise_blur) ** 2) * f2)
