"""Files of an inspected cohort: page, summary, contact sheet, and a table to start from."""

import base64
import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from covidscan.metrics.csv_cells import escape
from covidscan.report import html, slices
from covidscan.report.contact_sheet import contact_sheet
from covidscan.version import __version__
from tfds_mosmed import storage
from tfds_mosmed.building.cohort import CohortSummary
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.inspection.examine import Examined
from tfds_mosmed.inspection.listing import Cohort, path_below

TABLE = "table.csv"
PATHS = ("path", "mask")  # columns
SHEET_DPI = 200  # the widest sheet fills a page
_EXTRA = {"scanner": "scanner", "kernel": "kernel", "contrast agent": "contrast"}  # column -> field of `Acquisition`


def write(folder: Path, listed: Cohort, examined: Examined, *, with_table: bool) -> None:
    """Write the files to a folder, which is created.

    Args:
      folder: for index.html, summary.json, contact_sheet.png and .pdf, unusable.csv and table.csv.
      listed: the cohort.
      examined: its studies.
      with_table: whether to write table.csv, which alone names studies, besides unusable.csv.

    Raises:
      OSError: a file cannot be written.
    """
    index, summary = examined.index, examined.summary
    paths = {study.study_id: path_below(listed.root, study) for study in listed.studies}
    files: dict[str, bytes] = {}
    if examined.pictures:
        titles = [f"{number} {name}".strip() for number, name in enumerate(index.category, 1)]
        sheet = contact_sheet(examined.pictures, titles)
        files |= {"contact_sheet.png": sheet, "contact_sheet.pdf": slices.to_pdf(sheet, SHEET_DPI)}
    files["unusable.csv"] = _csv(("path", "reason"), [(paths[name], reason) for name, reason in examined.skipped])
    files["summary.json"] = (json.dumps(dataclasses.asdict(summary), indent=1, ensure_ascii=False) + "\n").encode()
    files["index.html"] = _page(summary, listed.layout, files.get("contact_sheet.png")).encode()
    if with_table:  # the last: where it is, a later inspection is refused, as it may have been edited
        masks = {study.study_id: _mask_below(listed.root, study) for study in listed.studies}
        files[TABLE] = _table(examined, *([of[study_id] for study_id in index.study_id] for of in (paths, masks)))
    storage.make_folder(folder)
    for name, content in files.items():
        storage.write_whole(folder / name, content)


def _mask_below(root: Path, study: FileStudy) -> str:
    """Return the path of a study's lesion mask relative to the root of its cohort; "" without one."""
    return study.mask.path.relative_to(root).as_posix() if study.mask else ""


def _table(examined: Examined, paths: Sequence[str], masks: Sequence[str]) -> bytes:
    index = examined.index
    acquired = [index.acquisition.get(study_id) for study_id in index.study_id]
    extra = {column: [getattr(one, field) if one else "" for one in acquired] for column, field in _EXTRA.items()}
    columns = {"path": paths, "label": index.category}
    # A table has patients, and sites, of all its studies or of none.
    columns |= {name: of for name, of in (("patient", index.patients()), ("site", index.sites())) if all(of)}
    columns |= {name: values for name, values in {"mask": masks, **extra}.items() if any(values)}
    return _csv(tuple(columns), zip(*columns.values(), strict=True))


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for cells in rows:
        # A path with a quote before it would not be found; one that begins with ./ is no formula either.
        writer.writerow(
            f"./{cell}" if name in PATHS and escape(cell) != cell else escape(cell)
            for name, cell in zip(header, cells, strict=True)
        )
    return text.getvalue().encode(errors="backslashreplace")


def _page(summary: CohortSummary, layout: str, sheet: bytes | None) -> str:
    css = (resources.files("covidscan.report") / "templates" / "report.css").read_text(encoding="utf-8")
    source = sheet and f"data:image/webp;base64,{base64.b64encode(slices.to_webp(sheet)).decode()}"
    return (
        html.environment(autoescape=True)
        .get_template("cohort.html")
        .render(summary=summary, layout=layout, sheet=source, css=Markup(css), version=__version__)
    )
