"""Text in cells of CSV files that spreadsheets open: a name never becomes a formula."""

import re

from tfds_mosmed.errors import visible

# What spreadsheets take for the beginning of a formula, after quotes and white space (OWASP, "CSV Injection").
_FORMULA = re.compile(r"['\s]*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def escape(text: str) -> str:
    """Put a quote before text that a spreadsheet would take for a formula, and write control characters as their codes.

    Numbers stay as they are.
    """
    text = visible(text)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape(cell: str) -> str:
    """Return the text of a cell that `escape` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
