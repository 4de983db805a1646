"""The way of the studies from the folder into the parts, as a diagram in SVG (after CONSORT's)."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

_WIDTH, _LEFT, _RIGHT = 440, 200, 200  # of the diagram, its left and its right column
_LINE, _PAD, _GAP = 17, 9, 24
_MOST_REASONS, _MOST_LABELS = 4, 4


def _box(x: int, y: int, width: int, lines: Sequence[str], kind: str = "") -> tuple[str, int]:
    """Draw a box with lines of text, the first one strong: SVG, and the height."""
    height = len(lines) * _LINE + 2 * _PAD - 3
    text = "".join(
        f'<text x="{x + 10}" y="{y + _PAD + _LINE * k + 11}" class="{"" if k else "strong"}">{escape(line)}</text>'
        for k, line in enumerate(lines)
    )
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" class="{kind}"/>{text}', height


def _studies(count: int) -> str:
    return f"{count:,} {'study' if count == 1 else 'studies'}"


def _reasons(skipped: Sequence[Sequence[str]]) -> list[str]:
    """Name the commonest reasons with their counts; figures within a reason are passed over."""
    found = Counter(reason.split(":")[0].strip() for _, reason in skipped).most_common()
    named = [f"{count} × {reason}" for reason, count in found[:_MOST_REASONS]]
    rest = sum(count for _, count in found[_MOST_REASONS:])
    named += [f"{rest} × other reasons"] if rest else []
    return [line for reason in named for line in textwrap.wrap(reason, 28)]


def describe(context: Mapping[str, Any]) -> str:
    """Say the diagram in words, for those who cannot see it."""
    flow = context["flow"]
    parts = ", ".join(f"{part} {_studies(count)}" for part, count in flow["parts"].items())
    return f"{_studies(flow['found'])} found, {flow['skipped']} left out; protocol {flow['protocol']}: {parts}."


def draw(context: Mapping[str, Any]) -> Markup:
    """Draw the diagram.

    Args:
      context: `report.Context`, with "flow".

    Returns:
      An SVG element that takes its colours from the page's style sheet.
    """
    flow, pieces = context["flow"], []
    box, tall = _box(0, 1, _LEFT, [_studies(flow["found"]), "found"])
    pieces.append(box)
    y = 1 + tall
    left_out = ["0 left out"] if not flow["skipped"] else [f"{flow['skipped']} left out", *_reasons(context["skipped"])]
    aside, aside_tall = _box(_WIDTH - _RIGHT, y + 8, _RIGHT, left_out, "aside")
    kept_y = y + max(_GAP, aside_tall + 16)
    branch = y + 8 + aside_tall // 2
    pieces += [f'<path d="M{_LEFT // 2} {y}V{kept_y - 1}M{_LEFT // 2} {branch}H{_WIDTH - _RIGHT - 1}"/>', aside]
    kept = [_studies(flow["found"] - flow["skipped"]), "in the records", f"split by {flow['protocol']}"]
    box, tall = _box(0, kept_y, _LEFT, kept)
    pieces.append(box)
    y = start = kept_y + tall
    for part, count in flow["parts"].items():
        y += _GAP - 8
        judged = part == context["part"]
        of = context["counts"].get(part, {})
        labels = ", ".join(f"{label} {number}" for label, number in of.items()) if len(of) <= _MOST_LABELS else ""
        lines = [f"{part}{' (judged here)' if judged else ''}: {_studies(count)}", *textwrap.wrap(labels, 50)]
        box, tall = _box(44, y, _WIDTH - 44, lines, "judged" if judged else "")
        pieces.append(f'<path d="M20 {start}V{y + tall // 2}H43"/>{box}')
        y += tall
    return Markup(
        f'<svg class="flow" viewBox="-1 0 {_WIDTH + 2} {y + 2}" role="img" aria-label="{escape(describe(context))}">'
        f"{''.join(pieces)}</svg>"
    )
