"""Contact sheet of a cohort: one slice of each study at the lung window, numbered."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from covidscan.report import slices

SIDES = ((60, 192), (300, 128))  # pixels of a tile, by the number of studies up to which it is used
SMALL_SIDE = 80
MAX_COLUMNS_PIXELS = 1600
TEXT_PIXELS = 15
SHOWN_HEIGHT = 0.55  # of the grid, from the feet


def tile(record: Mapping[str, Any]) -> np.ndarray:
    """Return an axial slice of a record, a little above the middle, where the lungs are wide.

    Args:
      record: with "volume", HU on the grid, (slice, row, column), and "spacing_mm" of the grid.

    Returns:
      uint8 (row, column) at the lung window, its pixels as wide as high.
    """
    volume, spacing_mm = record["volume"], record["spacing_mm"]
    plane = slices.to_grey(volume[round(SHOWN_HEIGHT * (len(volume) - 1))])
    height, width = (size * float(step) for size, step in zip(plane.shape, spacing_mm[1:], strict=True))
    scale = SIDES[0][1] / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))


def contact_sheet(tiles: Sequence[np.ndarray], titles: Sequence[str]) -> bytes:
    """Draw the sheet, row by row.

    Args:
      tiles: see `tile`, at least one.
      titles: of the tiles, without names of studies.

    Returns:
      PNG.
    """
    side = next((side for most, side in SIDES if len(tiles) <= most), SMALL_SIDE)
    columns = min(len(tiles), MAX_COLUMNS_PIXELS // side)
    sheet = Image.new("L", (columns * side, -(-len(tiles) // columns) * (side + TEXT_PIXELS)))
    draw = ImageDraw.Draw(sheet)
    draw.font = ImageFont.load_default(12)
    for number, (plane, title) in enumerate(zip(tiles, titles, strict=True)):
        left, top = number % columns * side, number // columns * (side + TEXT_PIXELS)
        image = Image.fromarray(plane)
        image.thumbnail((side - 2, side - 2))
        sheet.paste(image, (left + (side - image.width) // 2, top + TEXT_PIXELS + (side - image.height) // 2))
        draw.text((left + 3, top + 1), _fitting(draw, title, side - 6), fill=255)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _fitting(draw: ImageDraw.ImageDraw, title: str, width: int) -> str:
    """Shorten a title to a width in pixels."""
    while title and draw.textlength(title) > width:
        title = title[:-1]
    return title
