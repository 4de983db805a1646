"""Text in cells of CSV files that spreadsheets open: a name never becomes a formula."""

import re

from tfds_mosmed.errors import visible

# What spreadsheets take for the beginning of a formula, after quotes and white space (OWASP, "CSV Injection").
_FORMULA = re.compile(r"['\s]*[=+\-@\t\r\n＝＋－＠]")
# As `visible` writes a character.
_CODE = re.compile(r"\\(?:r|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def escape(text: str) -> str:
    """Put a quote before text that a spreadsheet would take for a formula, and write control characters as their codes.

    Numbers stay as they are.
    """
    text = visible(_CODE.sub(lambda code: f"\\x5c{code[0][1:]}", text))  # a code that is itself text is no character
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape(cell: str) -> str:
    """Return the text of a cell that `escape` wrote."""
    text = cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
    return _CODE.sub(lambda code: code[0].encode().decode("unicode_escape"), text)
