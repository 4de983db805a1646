"""Table of studies: a CSV file with a row for each study, checked before any study is read."""

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from etils import epath

from tfds_mosmed.ct_table.cells import (
    KNOWN,
    NO_VALUE,
    NONE,
    SEVERAL,
    describe_unknown,
    parse_fold,
    parse_part,
    parse_path,
    study_path,
)
from tfds_mosmed.ct_table.csv_file import CsvFile, Mistake, normal, read_csv
from tfds_mosmed.errors import UserError, visible

_NAMELESS = re.compile(r"(Unnamed: \d+)?")  # columns of row numbers, as pandas writes them and writes them again
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_PLAIN_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
SPARSE = ("site", "mask")  # of the others, each row has a value or none has
HEAVIEST = 1e6  # weight: float32 would lose the other studies
MOST_SHOWN = 20  # mistakes in a message
RARE = 0.1  # share of names among numbers, or of numbers among names, that are mistakes


@dataclasses.dataclass(frozen=True)
class TableRow:
    """Row of a table.

    Attributes:
      line: of the file, from 1.
      path: of the study, relative to the root, with "/" between its parts.
      label: a name; several names, sorted, with "|" between them, or `NONE`; or a number. "" where the table has no
        labels.
      patient: normalised; "" if unknown. It is for comparisons only, and is neither stored nor shown.
      site: "" if unknown.
      split: "train", "validation" or "test"; "" where the table has no such column.
      fold: None where the table has no such column.
      mask: path of the lesion mask, as `path`; "" if there is none.
      weight: of the study in the loss.
      groups: column -> value, of all other columns; empty ones are left out.
    """

    line: int
    path: str
    label: str
    patient: str = dataclasses.field(default="", repr=False)
    site: str = ""
    split: str = ""
    fold: int | None = None
    mask: str = ""
    weight: float = 1.0
    groups: dict[str, str] = dataclasses.field(default_factory=dict)


class Table(NamedTuple):
    """Table of studies.

    Attributes:
      path: of the file.
      sha256: of its content.
      columns: those of `KNOWN` that have values.
      groups: the other columns that have values.
      rows: in the file's order; those with a mistake, too, where they have a path.
      mistakes: in the file's order.
      is_utf8: otherwise it was read as Windows-1252, a superset of Latin-1.
    """

    path: epath.Path
    sha256: str
    columns: tuple[str, ...]
    groups: tuple[str, ...]
    rows: tuple[TableRow, ...]
    mistakes: tuple[Mistake, ...]
    is_utf8: bool


def read_table(path: epath.PathLike) -> Table:
    """Read a table, and collect its mistakes; `check_table` raises them.

    Args:
      path: a CSV file with the columns path and label, and any of patient, site, fold or split, mask, weight; others
        are subgroups.

    Raises:
      UserError: the file cannot be read, or has no column `path`.
    """
    path = epath.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--table={path}: cannot be read ({error.strerror or error}); give a CSV file with a row for each study"
        ) from error
    reading = _Reading(read_csv(path, content))
    rows = reading.rows()
    return Table(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        columns=tuple(name for name in KNOWN if name in reading.cells),
        groups=tuple(name for name in reading.cells if name not in KNOWN),
        rows=rows,
        mistakes=tuple(sorted({*reading.mistakes})),
        is_utf8=reading.file.is_utf8,
    )


def check_table(table: Table, others: Sequence[Mistake] = ()) -> None:
    """Check that a table has no mistakes.

    Args:
      table: the table.
      others: mistakes that its files show.

    Raises:
      UserError: it has; the message has their number, and the first of them by line and column.
    """
    found = sorted({*table.mistakes, *others})
    if found:
        shown = "; ".join(map(str, found[:MOST_SHOWN]))
        more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        count = f"{len(found)} mistakes: " if len(found) > 1 else ""
        raise UserError(f"{table.path}: {count}{shown}{more}")


class _Reading:
    """Reading of a table: its cells by column, and the mistakes found so far."""

    def __init__(self, file: CsvFile):
        self.file = file
        self.mistakes = list(file.mistakes)
        self.cells: dict[str, list[str]] = {}  # those of `KNOWN` by that name
        self._find_columns()

    def rows(self) -> tuple[TableRow, ...]:
        """Return the rows that have a path, and check all."""
        parsed: dict[str, list[Any]] = {
            "path": self._each("path", parse_path),
            "label": self._labels(),
            "patient": self._each("patient", normal),
            "site": self._alike("site"),
            "split": self._each("split", parse_part),
            "fold": self._each("fold", parse_fold, absent=None),
            "mask": self._each("mask", parse_path),
            "weight": self._each("weight", self._weight, absent=1.0),
        }
        groups = {name: self._plain(cells) for name, cells in self.cells.items() if name not in KNOWN}
        rows = tuple(
            TableRow(
                line=line,
                groups={name: cells[row] for name, cells in groups.items() if cells[row]},
                **{name: values[row] for name, values in parsed.items()},
            )
            for row, (line, _) in enumerate(self.file.rows)
            if parsed["path"][row]
        )
        self._check_paths(rows)
        self._check_patients(rows)
        if not self.file.rows and not self.mistakes:
            self.mistakes.append(Mistake(self.file.header_line, "", "is the last line; add a row for each study"))
        return rows

    def _add(self, row: int, column: str, reason: str) -> None:
        self.mistakes.append(Mistake(self.file.rows[row][0], column, reason))

    def _find_columns(self) -> None:
        """Find the columns by the header, and their cells; a column without any value is as if it were not there."""
        first: dict[str, str] = {}
        for position, name in enumerate(self.file.header):
            written = [cells[position] for _, cells in self.file.rows]
            cells = ["" if normal(cell) in NO_VALUE else cell for cell in written]
            known = normal(name)
            if _NAMELESS.fullmatch(name) or (not any(cells) and known != "path"):
                continue
            if known in first:
                reason = f"is there twice, as {first[known]!a}, too; rename or remove one"
            elif known in ("fold", "split") and {"fold", "split"} & self.cells.keys():
                reason = "is there beside the other of fold and split; remove one"
            else:
                reason = "" if known in KNOWN else describe_unknown(name, {*filter(None, cells)})
            first[known] = name
            if reason:
                self.mistakes.append(Mistake(self.file.header_line, name, reason))
                continue
            self.cells[known if known in KNOWN else visible(name)] = cells
            if known == "label" and any(SEVERAL in cell for cell in cells):
                self.cells[known] = [cell or NONE * (not text) for cell, text in zip(cells, written, strict=True)]
                cells = self.cells[known]
            if known in KNOWN and known not in SPARSE:
                for row, (cell, text) in enumerate(zip(cells, written, strict=True)):
                    if not cell:
                        reason = f"is {text!a}, which stands for no value" if text else "is empty"
                        remedy = "; give a patient who is not known a name of its own" if known == "patient" else ""
                        self._add(row, known, reason + remedy)

    def _each(self, name: str, parse: Callable[[str], Any], absent: Any = "") -> list[Any]:
        """Parse the cells of a column; `parse` raises ValueError with the reason."""
        values = []
        for row, cell in enumerate(self.cells.get(name, [""] * len(self.file.rows))):
            values.append(absent)
            if cell:
                try:
                    values[-1] = parse(cell)
                except ValueError as error:
                    self._add(row, name, str(error))
        return values

    def _number(self, text: str) -> float | None:
        """Return a finite number, which may have a decimal comma where semicolons separate the cells."""
        if self.file.delimiter == ";" and _DECIMAL_COMMA.fullmatch(text):
            text = text.replace(",", ".")
        try:
            number = float(text) if "_" not in text else math.nan
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def _plain(self, cells: list[str]) -> list[str]:
        """Return the cells of a column, with points for decimal commas where all are numbers."""
        numbers = [self._number(cell) if cell else 0.0 for cell in cells]
        return cells if None in numbers else [cell.replace(",", ".") for cell in cells]

    def _weight(self, text: str) -> float:
        number = self._number(text)
        if number is None or number <= 0:
            raise ValueError(f"is {text!a}, which is no number above 0")
        if not 1 / HEAVIEST <= number <= HEAVIEST:
            raise ValueError(f"is {text!a}; give a weight from {1 / HEAVIEST:g} to {HEAVIEST:g}")
        return number

    def _labels(self) -> list[str]:
        """Return the labels; names that are written in several ways, or names among numbers, are mistakes."""
        cells = self.cells.get("label", [""] * len(self.file.rows))
        numbers = [self._number(cell) for cell in cells]
        given = [row for row, cell in enumerate(cells) if cell]
        for row in given:
            if self.file.delimiter != ";" and _DECIMAL_COMMA.fullmatch(cells[row]):
                self._add(row, "label", f"is {cells[row]!a}; write a point for a decimal comma")
        is_number = [row for row in given if numbers[row] is not None]
        names = [row for row in given if numbers[row] is None]
        for few, many, kind in ((names, is_number, "a number"), (is_number, names, "a name")):
            if 0 < len(few) <= RARE * len(many):
                for row in few:
                    self._add(row, "label", f"is {cells[row]!a} and not {kind}, as {len(many)} others are")
        if len(is_number) > len(names):
            return [
                _shortest(number) if number is not None else cell for number, cell in zip(numbers, cells, strict=True)
            ]
        return self._alike("label")

    def _alike(self, name: str) -> list[str]:
        """Return names, of several in a cell each once; those that are equal when normalised are mistakes."""
        several = SEVERAL if name == "label" else "\n"
        split = [[part.strip() for part in cell.split(several)] for cell in self._each(name, str)]
        counts = collections.Counter(part for parts in split for part in parts)
        common: dict[str, str] = {}
        for part, _ in counts.most_common():
            common.setdefault(normal(part), part)
        for row, parts in enumerate(split):
            if len(parts) > 1 and ("" in parts or len({*parts}) < len(parts)):
                self._add(row, name, f"is {self.cells[name][row]!a}, with a name that is empty or there twice")
            for part in parts:
                if part and part != common[normal(part)]:
                    self._add(row, name, f"is {part!a}, which other rows write {common[normal(part)]!a}")
        return [several.join(sorted(map(visible, parts))) for parts in split]

    def _check_paths(self, rows: Sequence[TableRow]) -> None:
        """Check that no study has two rows, and that none is in the folder of another."""
        first: dict[PurePosixPath, TableRow] = {}
        for row in rows:
            other = first.setdefault(study_path(row.path), row)
            if other.label != row.label:
                self._mistake(
                    row, "label", f"is {row.label!a}, and {other.label!a} for this study on line {other.line}"
                )
            elif other is not row:
                self._mistake(row, "path", f"is {row.path!a}, which is on line {other.line}, too; remove one of them")
            if row.mask and PurePosixPath(row.mask) == PurePosixPath(row.path):
                self._mistake(row, "mask", f"is {row.mask!a}, which is the study itself")
        for path, row in first.items():
            around = next((first[parent] for parent in path.parents if parent in first), None)
            if around:
                self._mistake(row, "path", f"is {row.path!a}, which is in the study on line {around.line}; keep one")

    def _check_patients(self, rows: Sequence[TableRow]) -> None:
        """Check that the studies of a patient are in one part, and that no two patients may be one or share a mask."""
        first: dict[str, TableRow] = {}
        numbers: dict[float, TableRow] = {}
        masks: dict[str, TableRow] = {}
        for row in rows:
            other = numbers.setdefault(float(row.patient), row) if _PLAIN_NUMBER.fullmatch(row.patient) else row
            if other.patient != row.patient:  # spreadsheets drop the zeros of some
                reason = f"is the number that line {other.line} writes with other zeros; write each patient in one way"
                self._mistake(row, "patient", reason)
            other = masks.setdefault(row.mask, row) if row.mask else row
            if other.patient != row.patient:
                self._mistake(row, "mask", f"is {row.mask!a}, which is on line {other.line}, too, of another patient")
            other = first.setdefault(row.patient, row) if row.patient else row
            for name, own, others in (("split", row.split, other.split), ("fold", row.fold, other.fold)):
                if own not in (None, "", others) and others not in (None, ""):
                    reason = f"is {own}, and {others} on line {other.line}, of the same patient; put both into one part"
                    self._mistake(row, name, reason)

    def _mistake(self, row: TableRow, column: str, reason: str) -> None:
        self.mistakes.append(Mistake(row.line, column, reason))


def _shortest(number: float) -> str:
    """Write a number, a whole one without a point."""
    return str(int(number)) if number == int(number) else repr(number)
