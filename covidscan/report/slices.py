"""Sheets with all slices of a study in one small picture, for the page's slice viewer."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from covidscan.metrics.results import Failure
from covidscan.report import montage

MOST_STUDIES = 12
_SIDE = 192  # pixels of a slice at most
_QUALITY = 62  # of WebP; lung vessels and faint density stay visible


@dataclass(frozen=True)
class Sheet:
    """The slices of a study on one picture, row by row from feet to head.

    Attributes:
      source: the picture as a data URI.
      columns: slices in a row.
      rows: rows of slices.
      count: slices.
      first: index of the slice with most dense lung, shown first.
      aspect: width of a slice over its height, in mm.
    """

    source: str
    columns: int
    rows: int
    count: int
    first: int
    aspect: float


def to_grey(volume: np.ndarray) -> np.ndarray:
    """Convert HU to grey at the lung window, uint8."""
    level, width = montage.LUNG_WINDOW
    return np.clip((volume.astype(np.float32) - (level - width / 2)) * (255 / width), 0, 255).astype(np.uint8)


def sheet(volume: np.ndarray, spacing_mm: Sequence[float]) -> Sheet:
    """Lay out the slices of a study.

    Args:
      volume: (slice, row, column), HU.
      spacing_mm: (slice, row, column).
    """
    count, height, width = volume.shape
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    scale = min(1, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.new("L", (columns * size[0], rows * size[1]))
    for number, image in enumerate(to_grey(volume)):
        small = Image.fromarray(image)
        if scale < 1:
            small = small.resize(size, Image.Resampling.LANCZOS)
        picture.paste(small, (number % columns * size[0], number // columns * size[1]))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=_QUALITY, method=2)
    return Sheet(
        source=f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}",
        columns=columns,
        rows=rows,
        count=count,
        first=montage.lung_slices(volume, spacing_mm, 1)[0],
        aspect=width * float(spacing_mm[2]) / (height * float(spacing_mm[1])),
    )


def to_webp(png: bytes) -> bytes:
    """Convert a picture of slices to WebP, a tenth of the size."""
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(data, "WEBP", quality=80, method=4)
    return data.getvalue()


def of_failures(
    failures: Iterable[Failure], volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]]
) -> list[tuple[Failure, Sheet]]:
    """Lay out the failures whose volumes are given, at most `MOST_STUDIES`, shared evenly among the kinds.

    Args:
      failures: worst first.
      volumes: study id -> (HU (slice, row, column), spacing in mm).

    Returns:
      Failures with their sheets, kinds together.
    """
    kinds: dict[str, list[Failure]] = {}
    for failure in failures:
        if failure.study_id in volumes:
            kinds.setdefault(failure.kind, []).append(failure)
    most = MOST_STUDIES // max(len(kinds), 1)
    return [(failure, sheet(*volumes[failure.study_id])) for of in kinds.values() for failure in of[:most]]
