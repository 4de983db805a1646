"""Results as plain text tables for the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from covidscan.report import wording


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def evaluation_text(result: Mapping[str, Any]) -> str:
    """Format an evaluation: studies of each label, metrics and baseline, comparison, notes."""
    blocks = [
        "\n".join(f"CT scans with reference standard {name}: {count}" for name, count in result["counts"].items())
    ]
    blocks.append(_metrics_text("", result))
    if "disease" in result:
        blocks.append(_metrics_text(f"{result['label_names'][0]} against the other grades", result["disease"]))
    if result["comparison"]:
        blocks.append(comparison_text(result["comparison"]))
    if result["repeats"]:
        blocks.append(repeats_text(result["repeats"]))
    warnings = [f"Warning, shortcut: {shortcut}" for shortcut in result["shortcuts"]]
    blocks.append("\n".join([*result["notes"], result["operating_point"]["described"], *warnings]))
    return "\n\n".join(blocks)


def _metrics_text(title: str, table: Mapping[str, Any]) -> str:
    rows = [(title, "this model", "95 % interval", table["baseline"])]
    for name, metric in table["figures"].items():
        interval = "{:.3f} to {:.3f}".format(*metric["interval"]) if metric["interval"] else ""
        value, baseline = wording.number(metric["value"]), wording.number(metric["baseline"])
        rows.append((wording.title_of(name), value, interval, baseline))
    return text_table(rows)


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """Format the comparison of two runs."""
    rows = [("", "difference", "95 % interval", "", "test")]
    for name, metric in comparison["figures"].items():
        (low, high), p_value = metric["interval"], metric["p_value"]
        p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        difference = f"{metric['difference']:+.3f}"
        rows.append((wording.title_of(name), difference, f"{low:+.3f} to {high:+.3f}", p_text, metric["method"]))
    return f"{comparison['described']}\n\n{text_table(rows)}"


def repeats_text(repeats: Mapping[str, Any]) -> str:
    """Format mean and spread over folds, or over runs of several seeds."""
    kind = repeats["kind"]
    rows: list[Sequence[str]] = [(f"{len(repeats['members'])} {kind}", "mean", "SD", "lowest", "highest", kind)]
    for name, metric in repeats["figures"].items():
        spread = [metric[key] for key in ("mean", "sd", "lowest", "highest")]
        numbers = ["" if value is None else f"{value:.3f}" for value in spread]
        rows.append((wording.title_of(name), *numbers, str(metric["runs"])))
    return text_table(rows)
