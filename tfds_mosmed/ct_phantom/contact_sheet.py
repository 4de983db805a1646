"""Contact sheets of phantoms beside real studies, at lung and soft-tissue window, to judge how alike they look.

python -m tfds_mosmed.ct_phantom.contact_sheet --output=sheet.png SCAN [SCAN …]
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from tfds_mosmed.ct_phantom.disease.cases import CLASSES
from tfds_mosmed.ct_phantom.generator import make_phantom
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.read import read_scan

WINDOWS = ((-600, 1500), (40, 400))  # (level, width) in HU of lung and soft tissue
LEVELS = (0.25, 0.6)  # of the lungs' height
STUDIES_A_ROW = 6
TEXT_PIXELS = 14


def study_tile(hu: np.ndarray, tile: int, title: str) -> np.ndarray:
    """Return slices of a study, (row, column) uint8: columns are levels of the lungs, rows are windows.

    Args:
      hu: (slice, row, column).
      tile: width of a slice in pixels.
      title: text above the slices.
    """
    centre = slice(hu.shape[1] // 4, 3 * hu.shape[1] // 4)
    aerated = (hu[:, centre, hu.shape[2] // 8 : -hu.shape[2] // 8] < -500).mean((1, 2))
    inside = np.flatnonzero(aerated > 0.4 * aerated.max())
    shown = [hu[inside[int(level * (len(inside) - 1))]] for level in LEVELS]
    rows = [np.concatenate([_windowed(plane, *window, tile) for plane in shown], 1) for window in WINDOWS]
    header = Image.new("L", (2 * tile, TEXT_PIXELS))
    ImageDraw.Draw(header).text((2, 1), title, fill=255)
    return np.concatenate([np.asarray(header), *rows])


def contact_sheet(phantoms: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> np.ndarray:
    """Return rows of phantoms with the real studies in the middle row, (row, column) uint8; all are `study_tile`s."""
    rows = [list(phantoms[k : k + STUDIES_A_ROW]) for k in range(0, len(phantoms), STUDIES_A_ROW)]
    real_rows = [list(real[k : k + STUDIES_A_ROW]) for k in range(0, len(real), STUDIES_A_ROW)]
    rows[len(rows) // 2 : len(rows) // 2] = real_rows
    blank = np.zeros_like(rows[0][0])
    width = max(map(len, rows))
    return np.concatenate([np.concatenate(row + [blank] * (width - len(row)), 1) for row in rows])


def _windowed(plane: np.ndarray, level: float, width: float, tile: int) -> np.ndarray:
    grey = np.clip((plane.astype(np.float32) - level) / width + 0.5, 0, 1) * 255
    size = (tile, round(tile * plane.shape[0] / plane.shape[1]))
    return np.asarray(Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BOX).resize((tile, tile)))


def main(argv: Sequence[str]) -> None:
    """Write the sheet."""
    try:
        real = [study_tile(read_scan(path).hu, flags.FLAGS.tile, path) for path in argv[1:]]
    except UserError as error:
        sys.exit(f"error: {error}")
    tiles = []
    for number in range(flags.FLAGS.phantoms):
        kind = flags.FLAGS.kind or CLASSES[number % len(CLASSES)]
        category = ("CT-1", "CT-2", "CT-1", "CT-3")[number // len(CLASSES) % 4] if kind == "covid" else "CT-0"
        hospital = flags.FLAGS.hospital
        has_classes = hospital != "mosmed"
        seed = flags.FLAGS.seed + number
        phantom = make_phantom(seed, category, hospital=HOSPITALS[hospital], kind=kind if has_classes else None)
        title = kind if has_classes else category
        tiles.append(study_tile(phantom.hu, flags.FLAGS.tile, f"{title}: {', '.join(phantom.findings)}"))
    Image.fromarray(contact_sheet(tiles, real)).save(flags.FLAGS.output)


def _define_flags() -> None:
    flags.DEFINE_string("output", None, "PNG to write.", required=True)
    flags.DEFINE_enum("hospital", "any", list(HOSPITALS), "Whose phantoms.")
    flags.DEFINE_enum("kind", None, CLASSES, "Draw phantoms of this class; of all classes in turn by default.")
    flags.DEFINE_integer("seed", 0, "Seed of the first phantom; the others follow.")
    flags.DEFINE_integer("phantoms", 12, "Number of phantoms.")
    flags.DEFINE_integer("tile", 220, "Width of a slice in the sheet, in pixels.")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
