"""Cells of a CSV file as spreadsheets and programs write them, with the line of each row."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from tfds_mosmed.errors import UserError, one_line

DELIMITERS = ",;\t"
WORKBOOK_MARKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
REQUIRED = "path"


class Mistake(NamedTuple):
    """Mistake in a table.

    Attributes:
      line: of the file, from 1.
      column: its name in the header; "" of a whole line.
      reason: what is wrong, without the names of patients.
    """

    line: int
    column: str
    reason: str

    def __str__(self) -> str:
        return one_line(f"line {self.line}{self.column and f', column {self.column}'}: {self.reason}")


class CsvFile(NamedTuple):
    """Content of a CSV file.

    Attributes:
      header: names of the columns as they are written, without blanks around them.
      header_line: of the file.
      rows: (line of the file, from 1; cells, as many as the header has, without blanks around them); empty lines are
        left out.
      mistakes: lines that have another number of cells, or cannot be taken apart; they are not in `rows`.
      delimiter: between the cells.
      is_utf8: whether the file is in UTF-8 or UTF-16; otherwise it was read as Windows-1252, a superset of Latin-1.
    """

    header: list[str]
    header_line: int
    rows: list[tuple[int, list[str]]]
    mistakes: list[Mistake]
    delimiter: str
    is_utf8: bool


def normal(text: str) -> str:
    """Normalise a text, so that texts which differ in case, blanks, Unicode form or what nobody sees only are equal."""
    seen = "".join(one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) != "Cf")
    return " ".join(seen.casefold().split())


def read_csv(path: epath.PathLike, content: bytes) -> CsvFile:
    """Take a CSV file apart. Commas, semicolons or tabs separate the cells, whichever give a column `path`.

    Args:
      path: of the file, for messages.
      content: of the file.

    Raises:
      UserError: it is no such file, or has no column `path`.
    """
    text, is_utf8 = _decode(path, content)
    files = [_parse(text, delimiter, is_utf8) for delimiter in DELIMITERS]
    best = max(files, key=lambda file: (REQUIRED in map(normal, file.header), len(file.header)))
    if REQUIRED not in map(normal, best.header):
        names = ", ".join(filter(None, best.header))[:200] or "nothing"
        raise UserError(one_line(f"{path}: has no column {REQUIRED} but {names}; name the columns in its first line"))
    return best


def _decode(path: epath.PathLike, content: bytes) -> tuple[str, bool]:
    """Return the text, and whether it is UTF-8 or UTF-16."""
    if content.startswith(WORKBOOK_MARKS):
        raise UserError(f"{path}: is an Excel workbook; save it as CSV")
    encodings = ("utf-16",) if content.startswith(UTF16_MARKS) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding != "cp1252"
    raise UserError(f"{path}: is no text in UTF-8, UTF-16 or Latin-1; save it as CSV in UTF-8")


def _parse(text: str, delimiter: str, is_utf8: bool) -> CsvFile:
    file = CsvFile([], 1, [], [], delimiter, is_utf8)
    for line, cells in _lines(text, delimiter, file.mistakes):
        if not any(cells) or (line == 1 and _is_separator_line(text)):
            continue
        if not file.header:
            file.header.extend(cells)
            file = file._replace(header_line=line)
            continue
        while len(cells) > len(file.header) and not cells[-1]:
            cells.pop()  # separators that spreadsheets add
        broken = [name for name, cell in zip(file.header, cells, strict=False) if "\n" in cell or "\r" in cell]
        if broken:
            file.mistakes.append(Mistake(line, broken[0], "has a line break in it; a quote may not be closed"))
        elif len(cells) != len(file.header):
            reason = (
                f"has {len(cells)} cells, and the header {len(file.header)}; put a text with {delimiter!r} in quotes"
            )
            file.mistakes.append(Mistake(line, "", reason))
        else:
            file.rows.append((line, cells))
    return file


def _is_separator_line(text: str) -> bool:
    """Return whether a text begins with the line sep=; by which Excel knows the separator."""
    return re.match(r"sep=[,;\t]\s*[\r\n]", text, re.IGNORECASE) is not None


def _lines(text: str, delimiter: str, mistakes: list[Mistake]) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's number and its cells; what is no CSV is added to the mistakes."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.append(Mistake(line, "", f"is no CSV ({error}); check its quotes"))
        else:
            yield line, [cell.strip() for cell in cells]
