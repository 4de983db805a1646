"""Forest plot of subgroups: each metric with its interval beside that of all studies."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covidscan.metrics.results import Evaluation, Metric
from covidscan.report import wording
from covidscan.report.plots import BLUE, FAINT, INK

ALL = "All studies"
_ROW, _PANEL, _NAMES = 0.2, 1.75, 2.6  # inches: height of a row, widths of a metric's panel and of the groups' names


def plot(evaluation: Evaluation) -> Figure:
    """Draw the subgroups in rows and their metrics in panels; a line and a band are the metric of all studies.

    Args:
      evaluation: with subgroups.
    """
    overall = wording.key_metrics(evaluation)
    names = wording.subgroup_metrics(evaluation)
    rows: list[tuple[str, str, dict[str, Metric]]] = [(ALL, str(evaluation.num_studies), overall)]
    headings = []
    for subgroup in evaluation.subgroups:
        headings.append(len(rows))
        rows.append((f"By {subgroup.by}", "", {}))
        rows += [(group.name, str(group.num_studies), group.metrics) for group in subgroup.groups]
    width, height = _NAMES + _PANEL * len(names), _ROW * (len(rows) + 3)
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.12})[0]
    figure.subplots_adjust(left=_NAMES / width, right=0.99, bottom=2 * _ROW / height, top=1 - _ROW / height)
    for axes, name in zip(panels, names, strict=True):
        column = [metrics.get(name) for _, _, metrics in rows]
        _draw_panel(axes, column, _largest(column) if evaluation.regression else None)
        axes.set_title(wording.key_title(evaluation, name), fontsize=8.5, color=INK, pad=3)
    first = panels[0]
    first.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
    for row, (group, studies, _) in enumerate(rows):
        heading = row in headings or group == ALL
        shown = group if len(group) <= 34 else f"{group[:33]}…"
        place = first.get_yaxis_transform()
        first.text(-0.05, row, studies, transform=place, ha="right", va="center", fontsize=7.5, color=INK)
        first.text(
            -_NAMES / _PANEL + 0.02,
            row,
            shown,
            transform=place,
            va="center",
            fontsize=7.5,
            color=INK,
            fontweight="bold" if heading else "normal",
        )
    first.text(-0.05, 1, "n", transform=first.transAxes, ha="right", va="bottom", fontsize=7.5, color=FAINT)
    return figure


def _largest(metrics: list[Metric | None]) -> float:
    """Return the largest value or end of an interval."""
    ends = [each.interval[1] if each.interval else each.value for each in metrics if each]
    return max((end for end in ends if end), default=1.0)


def _draw_panel(axes: Axes, metrics: list[Metric | None], largest: float | None) -> None:
    """Draw a metric's rows, the first of which is that of all studies; `largest` ends the axis in place of 1."""
    whole = metrics[0]
    if whole and whole.value is not None:
        axes.axvline(whole.value, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        if whole.interval:
            axes.axvspan(*whole.interval, color=FAINT, alpha=0.12, linewidth=0)
    for row, metric in enumerate(metrics):
        if metric is None or metric.value is None:
            continue
        if metric.interval:
            axes.plot(metric.interval, [row, row], color=BLUE, linewidth=1.4, solid_capstyle="butt")
        axes.plot(metric.value, row, "D" if row == 0 else "s", color=BLUE, markersize=4.5 if row == 0 else 3.5)
    if largest is None:
        axes.set(xlim=(-0.03, 1.03), xticks=np.linspace(0, 1, 5), xticklabels=["0", ".25", ".5", ".75", "1"])
    else:
        axes.set_xlim(-0.03 * largest, 1.03 * largest)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=7.5, length=3, left=False)
