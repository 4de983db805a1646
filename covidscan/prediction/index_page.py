"""Page with a line for each study of a folder of predictions, which links to its explanation."""

import base64
from collections.abc import Callable, Mapping
from importlib import resources
from operator import attrgetter
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
    columns = _columns(info)
    html = template.render(
        lines=[_line(folder, last[number], columns) for number in sorted(last)],
        columns=columns,
        trained_on=info.trained_on,
        file=rows.path.name,
    )
    write_whole(folder / FILE, html.encode())
    return folder / FILE


def _columns(info: ModelInfo) -> dict[str, Callable[[Row], float | None]]:
    """Return title -> number of a row, of those that the task has."""

    def of(label: str) -> Callable[[Row], float | None]:
        return lambda row: row.probabilities.get(label)

    each = {label: of(label) for label in info.label_names}
    probability, threshold = attrgetter("probability"), attrgetter("threshold")
    match info.task:
        case "multilabel":
            return each
        case "classes":
            return {"Probability of the decision": probability, **each}
        case "severity":
            return {f"Probability above {info.label_names[0]}": probability, "Threshold": threshold, **each}
    return {"Probability of positive": probability, "Threshold": threshold}


def _line(folder: Path, row: Row, columns: Mapping[str, Callable[[Row], float | None]]) -> _Line:
    def named(ending: str) -> str:
        return next((name for name in row.files if name.endswith(ending)), "")

    thumbnail = named("_thumbnail.png")
    content = (folder / thumbnail).read_bytes() if thumbnail and (folder / thumbnail).exists() else b""
    numbers = tuple(number(row) for number in columns.values())
    return _Line(row, numbers, named(LISTED), base64.b64encode(content).decode())
