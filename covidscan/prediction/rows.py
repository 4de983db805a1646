"""Rows of predictions in a folder, to which a later call adds those of studies that are missing."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from covidscan.data.domain_shift import Flag
from covidscan.metrics.csv_cells import unescape
from covidscan.prediction.prediction import LABEL_PREFIX, SOURCE, csv_line
from tfds_mosmed import storage
from tfds_mosmed.building.sources import hash_sources, preparation_sha256
from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line
from tfds_mosmed.scans.find import Found


@dataclasses.dataclass(frozen=True)
class Row:
    """Row of a study, as it was written.

    Attributes:
      text: the row.
      flags: differences from the training studies, in a line.
      number, file, model, probability, decision, probabilities, threshold, files, error: see `Prediction`.
      source: likewise; "" of earlier versions.
    """

    text: str
    flags: str
    number: int
    file: str
    model: str
    probability: float | None
    decision: str | None
    probabilities: dict[str, float]
    threshold: float | None
    files: tuple[str, ...]
    error: str | None
    source: str


PREPARED_BY = "+"  # in `Prediction.source`, before the digits of the code


def is_of_same_files(stored: str, source: str) -> bool:
    """Return whether a stored `Prediction.source`, "" of earlier versions, is of the files that another one is of."""
    return not stored or stored.partition(PREPARED_BY)[0] == source.partition(PREPARED_BY)[0]


class RowsInFolder:
    """Rows of a folder that earlier calls wrote to, and this one adds to; see `rows_in_folder`.

    Attributes:
      path: file of the rows.
      rows: those that are complete; a last one that was cut is left out.
    """

    def __init__(self, folder: Path, as_json: bool):
        names = ("predictions.jsonl", "predictions.csv") if as_json else ("predictions.csv", "predictions.jsonl")
        self.path, other = (folder / name for name in names)
        if other.exists():
            raise UserError(
                f"{other} exists: give --format={'csv' if as_json else 'json'}, or choose another --output_dir"
            )
        self._as_json = as_json
        self._header = ""
        self.rows: list[Row] = []
        self.read()
        self._earlier = {row.file: row for row in self.rows}
        self._last = max((row.number for row in self.rows), default=0)
        self._added: dict[str, int] = {}
        self._sources: dict[str, str] = {}

    def read(self) -> None:
        """Read the rows anew."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
        complete = text[: text.rfind("\n") + 1]
        try:
            if self._as_json:
                self.rows = [_row(line, json.loads(line)) for line in complete.splitlines()]
            else:
                self._header, self.rows = _rows_of_csv(complete)
        except NOT_AS_WRITTEN as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise UserError(
                f"{self.path} is not as this version writes it ({reason}): choose another --output_dir"
            ) from error

    def has(self, study: Found, endings: Sequence[str]) -> bool:
        """Return whether a study has a row without an error and, if there are endings, its files, one with each.

        A study whose own files have changed since has none.
        """
        row = self._row(study)
        if row is None or row.error is not None:
            return False
        if not endings:
            return True
        has_all = all(any(name.endswith(end) for name in row.files) for end in endings)
        return has_all and self.files(study) == row.files

    def files(self, study: Found) -> tuple[str, ...]:
        """Return the names of the files that an earlier call wrote for a study, and that are still there."""
        row = self._row(study)
        return () if row is None else tuple(name for name in row.files if self.path.with_name(name).exists())

    def source(self, study: Found) -> str:
        """Return what `Prediction.source` is of a study, as its files were when it was first asked for."""
        file = file_of(study)
        if file not in self._sources:
            hashes = hash_sources(FileStudy("", "", Path(study.path)), content=False)
            digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
            self._sources[file] = f"{digest[:12]}{PREPARED_BY}{preparation_sha256()[:6]}"
        return self._sources[file]

    def num_of_other_versions(self, studies: Sequence[Found]) -> int:
        """Count the studies whose rows stay although another version of this package read and prepared them."""
        rows = [row for study in studies if (row := self._row(study)) and row.error is None]
        return sum(row.source.partition(PREPARED_BY)[2] != preparation_sha256()[:6] for row in rows)

    def _row(self, study: Found) -> Row | None:
        """Return the earlier row of a study whose files are as they were."""
        row = self._earlier.get(file_of(study))
        return row if row is not None and is_of_same_files(row.source, self.source(study)) else None

    def number(self, study: Found) -> int:
        """Return the number of a study: that of its earlier row, or the next.

        Of a study that has changed it is the next one if there are files with the earlier number.
        """
        file = file_of(study)
        row = self._earlier.get(file)
        if row is not None and (not row.files or self._row(study)):
            return row.number
        return self._added.setdefault(file, self._last + len(self._added) + 1)

    @contextlib.contextmanager
    def adding(self, missing: Sequence[Found], model: str, header: str) -> Iterator[IO[str]]:
        """Open the file to add rows of studies; earlier ones of theirs are removed.

        Args:
          missing: the studies.
          model: see `Prediction.model`.
          header: of the columns of CSV.

        Raises:
          UserError: the rows are of another model.
        """
        if any(row.model != model for row in self.rows) or self._header not in ("", header):
            raise UserError(
                f"{self.path} holds predictions of another model, or differs in --tta or --prevalence: choose another "
                "--output_dir"
            )
        again = {file_of(study) for study in missing}
        lines = [*([] if self._as_json else [header]), *(row.text for row in self.rows if row.file not in again)]
        storage.write_whole(self.path, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            yield file


@contextlib.contextmanager
def rows_in_folder(folder: Path, as_json: bool) -> Iterator[RowsInFolder]:
    """Read the rows of a folder; no other process adds to them as long as the body lasts.

    Args:
      folder: an existing folder.
      as_json: whether a row is a line of JSON in predictions.jsonl, and not a row of predictions.csv.

    Raises:
      UserError: another process adds to the rows, or there are rows in the other format, or something else.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            if not storage.try_lock(descriptor):
                raise UserError(f"{folder}: another process writes to it: wait for it, or choose another --output_dir")
        yield RowsInFolder(folder, as_json)
    finally:
        os.close(descriptor)


def file_of(study: Found) -> str:
    """Return the absolute path of a study's file or folder."""
    return os.path.abspath(study.path)


def _rows_of_csv(text: str) -> tuple[str, list[Row]]:
    """Return the header, "" of an empty file, and the rows."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = next(reader, [])
    added = [SOURCE] if columns and SOURCE not in columns else []
    columns += added
    rows: list[Row] = []
    # A last row that was cut within a cell with a line feed, which is in quotes, is an error of `csv`.
    with contextlib.suppress(csv.Error):
        for cells in reader:
            cells += [""] * len(added)
            values: dict[str, Any] = dict(zip(columns, cells, strict=True))
            texts = {name: unescape(values.get(name, "")) for name in ("decision", "flags", "file", "error")}
            labels = {
                unescape(name).removeprefix(LABEL_PREFIX): cell
                for name, cell in values.items()
                if name.startswith(LABEL_PREFIX)
            }
            lists = {"files": values["files"].split(), "probabilities": labels}
            rows.append(_row(csv_line(cells), values | texts | lists))
    return csv_line(columns) if columns else "", rows


def _row(text: str, values: dict[str, Any]) -> Row:
    flags = values["flags"]
    if not isinstance(flags, str):  # of JSON
        flags = "; ".join(str(Flag(**flag)) for flag in flags)
    return Row(
        text=text,
        flags=flags,
        number=int(values["number"]),
        file=str(values["file"]),
        model=str(values["model"]),
        probability=_number(values.get("probability")),
        decision=values.get("decision") or None,
        probabilities={name: float(p) for name, p in values["probabilities"].items() if p != ""},
        threshold=_number(values["threshold"]),
        files=tuple(values["files"]),
        error=values["error"] or None,
        source=values.get(SOURCE) or "",
    )


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
