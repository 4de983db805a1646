"""All slices of a study in one small picture, for the page's slice viewer."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from covidscan.report import montage

MOST_STUDIES = 12
_SIDE = 192  # pixels of a slice at most
_QUALITY = 62  # of WebP; lung vessels and faint density are still seen


def _grey(volume: np.ndarray) -> np.ndarray:
    """Turn HU into grey at the lung window, uint8."""
    level, width = montage.LUNG_WINDOW
    return np.clip((volume.astype(np.float32) - (level - width / 2)) * (255 / width), 0, 255).astype(np.uint8)


def sheet(volume: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Lay the slices of a study out on one sheet, row by row from feet to head.

    Args:
      volume: (slice, row, column), HU.
      spacing_mm: (slice, row, column).

    Returns:
      "source": the sheet as a data URI; "columns" and "rows" of slices on it; "count" of slices; "first": the slice
      with most dense lung, to begin with; "aspect": width of a slice over its height, in mm.
    """
    count, height, width = volume.shape
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    scale = min(1, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.new("L", (columns * size[0], rows * size[1]))
    for number, image in enumerate(_grey(volume)):
        small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS) if scale < 1 else Image.fromarray(image)
        picture.paste(small, (number % columns * size[0], number // columns * size[1]))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=_QUALITY, method=2)
    return {
        "source": f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}",
        "columns": columns,
        "rows": rows,
        "count": count,
        "first": montage.telling_slices(volume, spacing_mm, 1)[0],
        "aspect": width * float(spacing_mm[2]) / (height * float(spacing_mm[1])),
    }


def to_webp(png: bytes) -> bytes:
    """Turn a picture of slices into WebP, a tenth of the size."""
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(data, "WEBP", quality=80, method=4)
    return data.getvalue()


def of_failures(
    failures: Iterable[Mapping[str, Any]], volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]]
) -> list[dict[str, Any]]:
    """Lay out the failures whose volumes are at hand, `MOST_STUDIES` at most and as evenly over the kinds as they come.

    Args:
      failures: `judge.judge`'s, worst first.
      volumes: study id -> (HU (slice, row, column), spacing in mm).

    Returns:
      Each failure with what `sheet` gives added, kinds together.
    """
    kinds = {}
    for failure in failures:
        if failure["study_id"] in volumes:
            kinds.setdefault(failure["kind"], []).append(failure)
    most = MOST_STUDIES // max(len(kinds), 1)
    return [{**failure, **sheet(*volumes[failure["study_id"]])} for of in kinds.values() for failure in of[:most]]
