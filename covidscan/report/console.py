"""Results as plain text tables for the console."""

import sys
from collections.abc import Sequence

from covidscan.metrics import metrics_json
from covidscan.metrics.results import Comparison, Evaluation, LabelResult, MetricsTable, Repeats
from covidscan.report import wording
from tfds_mosmed.errors import one_line
from tfds_mosmed.progress import fitted, terminal_columns


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right.

    Where the table is wider than the terminal, its last columns follow below, beside the first one again.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = terminal_columns(sys.stdout) or sum(widths) + 2 * len(widths)
    parts: list[list[int]] = [[]]
    for number, width in enumerate(widths[1:], 1):
        if parts[-1] and sum(2 + widths[each] for each in parts[-1]) + 2 + width > room - widths[0]:
            parts.append([])
        parts[-1].append(number)
    return "\n\n".join("\n".join(_aligned(row, widths, part) for row in rows) for part in parts)


def _aligned(row: Sequence[str], widths: Sequence[int], part: Sequence[int]) -> str:
    cells = (row[number].rjust(widths[number]) for number in part)
    return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def evaluation_text(evaluation: Evaluation) -> str:
    """Format an evaluation: baselines that are not beaten, studies of each label, metrics, comparison, notes."""
    evaluation = metrics_json.map_texts(evaluation, one_line)
    counts = [f"CT scans with reference standard {name}: {count}" for name, count in evaluation.counts.items()]
    if evaluation.regression:
        counts = [f"CT scans: {evaluation.num_studies}"]
    blocks = ["\n".join(counts), _metrics_text("", evaluation)]
    called = fitted("\n".join(f"{each.title}: {each.text}" for each in wording.not_beaten(evaluation)))
    pooled = wording.is_of_folds(evaluation)
    if evaluation.repeats and pooled:
        blocks[1:] = [repeats_text(evaluation.repeats), _metrics_text("all folds pooled", evaluation)]
    if evaluation.labels:
        blocks.append(_labels_text(evaluation.labels))
    if evaluation.disease:
        blocks.append(_metrics_text(f"{evaluation.label_names[0]} against the other grades", evaluation.disease))
    if evaluation.comparison:
        blocks.append(comparison_text(evaluation.comparison))
    if evaluation.repeats and not pooled:
        blocks.append(repeats_text(evaluation.repeats))
    point = [evaluation.operating_point.description]
    if evaluation.threshold is not None:
        decided = "positive" if evaluation.task == "binary" else "graver"
        point.insert(
            0, f"A study is predicted {decided} at a probability of {wording.brief(evaluation.threshold)} or more."
        )
    warnings = [f"Warning, shortcut: {shortcut}" for shortcut in evaluation.shortcuts]
    warnings += [f"Warning, too few studies: {warning}" for warning in evaluation.warnings]
    blocks.append(fitted("\n".join([*evaluation.notes, " ".join(point), *warnings])))
    return "\n\n".join([called, *blocks] if called else blocks)


def _metrics_text(title: str, table: Evaluation | MetricsTable) -> str:
    rows = [(title, "this model", "95 % interval", table.baseline)]
    for name, metric in table.metrics.items():
        interval = "{:.3f} to {:.3f}".format(*metric.interval) if metric.interval else ""
        rows.append((wording.title_of(name), wording.number(metric.value), interval, wording.number(metric.baseline)))
    return text_table(rows)


def _labels_text(labels: Sequence[LabelResult]) -> str:
    names = ("auroc", "auprc", "sensitivity", "specificity")
    rows = [("label", "studies", *map(wording.title_of, names), "threshold")]
    for label in labels:
        threshold = "by fold" if label.threshold is None else wording.brief(label.threshold)
        values = [wording.number(label.metrics[name].value) for name in names]
        rows.append((label.name, str(label.num_positive), *values, threshold))
    return text_table(rows)


def comparison_text(comparison: Comparison) -> str:
    """Format the comparison of two runs."""
    rows = [("", "difference", "95 % interval", "", "test")]
    for name, metric in comparison.metrics.items():
        p_text = "p < 0.001" if metric.p_value < 0.001 else f"p = {metric.p_value:.3f}"
        interval = "{:+z.3f} to {:+z.3f}".format(*metric.interval)
        rows.append((wording.title_of(name), f"{metric.difference:+z.3f}", interval, p_text, metric.method))
    return f"{fitted(comparison.description)}\n\n{text_table(rows)}"


def repeats_text(repeats: Repeats) -> str:
    """Format mean and spread over folds, or over runs of several seeds."""
    header = (f"{len(repeats.members)} {repeats.kind}", "mean", "SD", "lowest", "highest", repeats.kind)
    rows: list[Sequence[str]] = [header]
    for name, spread in repeats.metrics.items():
        values = (spread.mean, spread.sd, spread.lowest, spread.highest)
        numbers = ["" if value is None else f"{value:.3f}" for value in values]
        rows.append((wording.title_of(name), *numbers, str(spread.runs)))
    return text_table(rows)
