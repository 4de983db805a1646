"""Page with a line for each study of a folder of predictions, which links to its explanation."""

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2

from covidscan.prediction.rows import Row, RowsInFolder
from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.storage import write_whole

FILE = "index.html"
LISTED = ".html"  # ending of an explanation's page


class _Line(NamedTuple):
    """Row with the numbers that are shown, None where there is none, and its explanation.

    That is the name of the page, and the thumbnail as base64 of PNG; "" where there is none.
    """

    row: Row
    numbers: tuple[float | None, ...]
    page: str
    thumbnail: str


def write(rows: RowsInFolder, info: ModelInfo) -> Path:
    """Write the page beside the rows, without names of studies: they may identify patients, and pages are passed on.

    Args:
      rows: the rows of the folder.
      info: of the model.

    Returns:
      Path of the page, which fetches nothing.

    Raises:
      OSError: a file cannot be read or written.
    """
    folder = rows.path.parent
    last = {row.number: row for row in rows.rows}  # a study that was given twice has two rows
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (resources.files("covidscan.prediction") / "index.html").read_text()
    )
    labels = info.label_names if len(info.label_names) > 2 or info.task == "multilabel" else ()
    html = template.render(
        lines=[_line(folder, last[number], labels) for number in sorted(last)],
        labels=labels,
        probability="Probability of positive" if info.task == "binary" else "Probability",
        trained_on=info.trained_on,
        file=rows.path.name,
    )
    write_whole(folder / FILE, html.encode())
    return folder / FILE


def _line(folder: Path, row: Row, labels: Sequence[str]) -> _Line:
    def named(ending: str) -> str:
        return next((name for name in row.files if name.endswith(ending)), "")

    thumbnail = named("_thumbnail.png")
    content = (folder / thumbnail).read_bytes() if thumbnail and (folder / thumbnail).exists() else b""
    numbers = (row.probability, *map(row.probabilities.get, labels), row.threshold)
    return _Line(row, numbers, named(LISTED), base64.b64encode(content).decode())
