"""Sheets with all slices of a study in one small picture, for the page's slice viewer."""

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from covidscan.metrics.results import Failure
from covidscan.report import montage

MOST_STUDIES = 12
_SIDE = 192  # pixels of a slice at most
_OUTLINE_SIDE = 320  # of an outline, which needs few bytes
_QUALITY = 62  # of WebP; lung vessels and faint density stay visible


@dataclass(frozen=True)
class Sheet:
    """The slices of a study on one picture, row by row from feet to head.

    Attributes:
      source: the picture as a data URI.
      columns: slices in a row.
      rows: rows of slices.
      count: slices.
      first: index of the slice shown first.
      has_most: what that slice has most of, see `montage.ShownStudy.opening`.
      aspect: width of a slice over its height, in mm.
      outlines: the outlines of lesions as a data URI, laid out as the slices, transparent elsewhere; None where none
        are marked.
    """

    source: str
    columns: int
    rows: int
    count: int
    first: int
    has_most: str
    aspect: float
    outlines: str | None


def to_grey(volume: np.ndarray) -> np.ndarray:
    """Convert HU to grey at the lung window, uint8."""
    level, width = montage.LUNG_WINDOW
    return np.clip((volume.astype(np.float32) - (level - width / 2)) * (255 / width), 0, 255).astype(np.uint8)


def sheet(study: montage.ShownStudy) -> Sheet:
    """Lay out the slices of a study."""
    volume, spacing_mm, mask, _ = study
    first, has_most = study.opening()
    count, height, width = volume.shape
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    scale = min(1, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    outlines = None
    if mask is not None and study.is_marked:
        lines = Image.new("P", (columns * _OUTLINE_SIDE, rows * _OUTLINE_SIDE))
        lines.putpalette([0, 0, 0, *ImageColor.getrgb(montage.OUTLINE)])
        drawn = ((number, _outline(mask[number])) for number in np.flatnonzero(mask.any((1, 2))).tolist())
        outlines = _data_uri(_lay_out(lines, drawn, columns), "PNG", transparency=0, bits=1)
    picture = Image.new("L", (columns * size[0], rows * size[1]))
    _lay_out(picture, enumerate(_resized(to_grey(volume), size)), columns)
    return Sheet(
        source=_data_uri(picture, "WEBP", quality=_QUALITY, method=2),
        columns=columns,
        rows=rows,
        count=count,
        first=first,
        has_most=has_most,
        aspect=width * float(spacing_mm[2]) / (height * float(spacing_mm[1])),
        outlines=outlines,
    )


def _resized(images: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[Image.Image]:
    for image in map(Image.fromarray, images):
        yield image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _outline(mask: np.ndarray) -> Image.Image:
    """Return a lesion's edge as 1 in a square of 0; it is two pixels wide, and covers nothing of the lesion."""
    large = Image.fromarray((mask > 0).astype(np.uint8) * 255).resize([_OUTLINE_SIDE] * 2, Image.Resampling.BILINEAR)
    inside = np.asarray(large) > 127
    around = np.asarray(ndimage.binary_dilation(inside, iterations=2), bool)
    return Image.fromarray((around & ~inside).astype(np.uint8), "P")


def _lay_out(onto: Image.Image, images: Iterable[tuple[int, Image.Image]], columns: int) -> Image.Image:
    """Paste numbered pictures of one size row by row, and return what they were pasted onto."""
    for number, image in images:
        onto.paste(image, (number % columns * image.width, number // columns * image.height))
    return onto


def _data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def to_webp(png: bytes) -> bytes:
    """Convert a picture of slices to WebP, a tenth of the size."""
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(data, "WEBP", quality=80, method=2)
    return data.getvalue()


def to_pdf(png: bytes, dpi: int) -> bytes:
    """Convert a picture of slices to a PDF page of its size; the same picture gives the same file."""
    picture, data = Image.open(io.BytesIO(png)), io.BytesIO()
    if picture.mode != "L":
        picture = picture.convert("RGB")
    picture.save(data, "PDF", resolution=dpi, quality=90, creationDate=None, modDate=None)
    return data.getvalue()


def viewed(failures: Iterable[Failure], volumes: Mapping[str, montage.ShownStudy]) -> list[Failure]:
    """Choose the failures whose slices are shown: at most `MOST_STUDIES`, shared evenly among the kinds.

    Args:
      failures: worst first.
      volumes: study id -> study; failures without one are left out.

    Returns:
      Failures, kinds together.
    """
    kinds: dict[str, list[Failure]] = {}
    for failure in failures:
        if failure.study_id in volumes:
            kinds.setdefault(failure.kind, []).append(failure)
    most = MOST_STUDIES // max(len(kinds), 1)
    return [failure for of in kinds.values() for failure in of[:most]]
