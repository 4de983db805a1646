"""The items of CLAIM 2024 and TRIPOD+AI, each filled from the run or marked NOT REPORTED, in Markdown.

The items stand in claim_2024.toml and tripod_ai.toml, each with the name of the function that fills it. An item without
one, or whose function gives None, is not reported: what a run did not do is never claimed.
"""

import importlib.resources
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from covidscan.report import checklist_methods, checklist_results, checklist_use, wording
from tfds_mosmed.errors import one_line

CHECKLISTS = ("claim_2024.toml", "tripod_ai.toml")
NOT_REPORTED = "NOT REPORTED"

Filler = Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]


def read_checklist(name: str) -> dict[str, Any]:
    """Read a checklist's items.

    Args:
      name: one of `CHECKLISTS`.

    Returns:
      "name", "about", "citation", "doi", "total" (number of items) and "section", a list of {"name", "item"}; an item
      has "number", "text", and where there is one "filler" (a function's name) and "author" (what no run can know).
    """
    return tomllib.loads(
        importlib.resources.files("covidscan.report").joinpath("checklists", name).read_text(encoding="utf-8")
    )


def filler(name: str) -> Filler:
    """Find the function that fills an item."""
    for module in (checklist_methods, checklist_results, checklist_use):
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(f"`name` (={name!r}) must be a function of the checklists' fillers.")


def render_checklist(result: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Write both checklists.

    Args:
      result: what `judge.judge` gave.
      context: see `report.Context`.

    Returns:
      Markdown: what the figures come from, the counts of items filled, and a table a section.
    """
    phantom = wording.phantom_banner(context)
    counts, tables = [], []
    for checklist in map(read_checklist, CHECKLISTS):
        cells = {
            item["number"]: filler(item["filler"])(result, context) if "filler" in item else None
            for section in checklist["section"]
            for item in section["item"]
        }
        filled = sum(cell is not None for cell in cells.values())
        counts.append(
            f"- {checklist['name']}: {filled} of {checklist['total']} filled by this run; "
            f"{checklist['total'] - filled} {NOT_REPORTED}"
        )
        tables += _tables(checklist, cells)
    lines = [
        "# Reporting checklists",
        "",
        *([f"> **Phantom data.** {phantom}", ">"] if phantom else []),
        f"> **{wording.origin(context)}**",
        "",
        *counts,
        "",
        f"Filled on {context['date']} from the run in {context['workdir']}, judged on {context['dataset']}, part "
        f"{context['part']}. Items are worded in short; the papers have them in full. {NOT_REPORTED}: the run cannot "
        "know it, or did not do it. The last column says what is left to the author, of filled items too.",
        *tables,
    ]
    return "\n".join(lines) + "\n"


def _tables(checklist: Mapping[str, Any], cells: Mapping[str, str | None]) -> list[str]:
    lines = [
        "",
        f"## {checklist['name']}",
        "",
        f"{checklist['about']}. {checklist['citation']}, https://doi.org/{checklist['doi']}",
    ]
    for section in checklist["section"]:
        lines += ["", f"### {section['name']}", "", "| | item | this run | left to the author |", "|---|---|---|---|"]
        for item in section["item"]:
            cell = cells[item["number"]]
            said = f"**{NOT_REPORTED}**" if cell is None else _cell(cell)
            lines.append(f"| {item['number']} | {item['text']} | {said} | {item.get('author', '')} |")
    return lines


def _cell(text: str) -> str:
    """Keep text inside a cell of a Markdown table, and what looks like HTML from being read as such."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
