"""Pictures of an evaluation and of learning curves, by Matplotlib, in colours that the colour-blind can tell apart."""

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from covidscan.metrics.results import Calibration, DecisionCurve
from covidscan.report.charts import ChartData, Curve

# Okabe & Ito, "Color universal design" (2008).
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = SERIES
INK, FAINT = "#222222", "#767676"


def to_png(figure: Figure, dpi: int = 180) -> bytes:
    """Render a figure as PNG, cropped to its content; names of studies and labels are text and not formulas."""
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        cast(Text, text).set_parse_math(False)
    data = io.BytesIO()
    # Without the version of Matplotlib in it, the same numbers give the same file.
    figure.savefig(data, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return data.getvalue()


def finish_axes(axes: Axes) -> None:
    """Keep two thin axis lines and small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=8, length=3)


def _message(axes: Axes, message: str) -> None:
    """Write a message where a curve would be."""
    axes.text(0.5, 0.5, message, color=FAINT, fontsize=9, wrap=True, ha="center", va="center", transform=axes.transAxes)


def unit_square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Create square axes from 0 to 1."""
    figure = Figure(figsize=(3.4, 3.4))
    axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    finish_axes(axes)
    return figure, axes


def legend(axes: Axes, **options: Any) -> None:
    """Add a legend in the curves' colours: inside the axes, or beside them where there are many."""
    if len(axes.get_legend_handles_labels()[1]) > len(SERIES):
        options |= {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
    axes.legend(
        fontsize=8,
        labelcolor="linecolor",
        handlelength=1.2,
        facecolor="white",
        edgecolor="none",
        framealpha=0.85,
        borderpad=0.2,
        **options,
    )


def roc(data: ChartData, threshold: float | None) -> Figure:
    """Draw the ROC curve of each question of the task, with the operating point of the binary task.

    Args:
      data: the curves.
      threshold: of the operating point; None where each fold of a cross-validation has its own.
    """
    figure, axes = unit_square("1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.585, "chance", color=FAINT, fontsize=8, rotation=45, rotation_mode="anchor", va="top")
    for curves, style in zip(data.curves, styles(), strict=False):
        axes.plot(*curves.roc, **style, label=f"{legend_name(curves.name)}: AUROC {curves.auroc:.3f}")
    if data.operating_dot:
        _mark_operating_point(axes, data.operating_dot, threshold)
    if data.curves:
        legend(axes, loc="lower right")
    else:
        _message(axes, "ROC is not defined:\nevery study has the same label")
    return figure


def _mark_operating_point(axes: Axes, dot: tuple[float, float], threshold: float | None) -> None:
    name = "each fold's threshold" if threshold is None else f"threshold {threshold:.3g}"
    axes.plot(*dot, "o", color=VERMILLION, markersize=6, zorder=3, clip_on=False)
    left = dot[0] > 0.5
    axes.annotate(
        f"{name}\nsensitivity {dot[1]:.0%}\nspecificity {1 - dot[0]:.0%}",
        dot,
        xytext=(-8 if left else 8, -8),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=VERMILLION,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def precision_recall(data: ChartData) -> Figure:
    """Draw the precision-recall curve of each question of the task, with a line at the prevalence."""
    figure, axes = unit_square("Sensitivity (recall)", "Positive predictive value (precision)")
    for curves, style in zip(data.curves, styles(), strict=False):
        # A step: between two thresholds there is no classifier whose precision lies on a straight line.
        label = f"{legend_name(curves.name)}: {curves.auprc:.3f} ({curves.prevalence:.3f})"
        axes.step(*curves.precision_recall, where="post", **style, label=label)
        axes.axhline(curves.prevalence, color=style["color"], linewidth=0.8, linestyle=(0, (4, 3)))
    if data.curves:
        legend(axes, loc="lower left", title="AUPRC (of always positive)", title_fontsize=8)
    else:
        _message(axes, "Precision and recall are not defined:\nevery study has the same label")
    return figure


def legend_name(name: str) -> str:
    """Return a name for a legend; Matplotlib leaves names that begin with an underscore out of it."""
    return " " * name.startswith("_") + name


def styles() -> Iterator[dict[str, Any]]:
    """Yield a style for each curve: six colours, then the same ones dotted."""
    for line, color in cycle(product(("-", ":", "-."), SERIES)):
        yield {"color": color, "linestyle": line, "linewidth": 1.8}


def confusion_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: studies, and their share of each reference label.

    Args:
      matrix: studies; a row a reference label, a column a predicted one.
      names: of the labels.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(2.6, 0.85 * len(names) + 0.6)
    figure = Figure(figsize=(side + 0.8, side))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.72 else INK
        axes.text(column, row - 0.08, str(count), ha="center", va="center", fontsize=13, color=color)
        if counts[row].sum():
            share = f"{shares[row, column]:.0%}"
            axes.text(column, row + 0.24, share, ha="center", va="center", fontsize=8, color=color)
    positions = range(len(names))
    long = max(map(len, names)) * len(names) > 48
    axes.set_xticks(
        positions, names, rotation=40 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
    )
    axes.set_yticks(positions, [f"{name}\n(n = {total})" for name, total in zip(names, counts.sum(1), strict=True)])
    axes.set_xlabel("Prediction", fontsize=9)
    axes.set_ylabel("Reference standard", fontsize=9)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def reliability(calibration: Calibration) -> Figure:
    """Draw the reliability diagram before and after calibration, over a histogram of the predictions."""
    figure = Figure(figsize=(3.4, 4.3))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    sides = (("before", calibration.before.bins, VERMILLION, "s", -1), ("after", calibration.after.bins, BLUE, "o", 1))
    for when, bins, color, marker, shift in sides:
        probability, observed = [each.mean_probability for each in bins], [each.observed for each in bins]
        # A Wilson interval need not hold its own proportion to the last bit.
        reach = np.abs(np.asarray([each.interval for each in bins]).T - observed) if bins else None
        style = {"color": color, "linewidth": 1.4, "marker": marker, "markersize": 4, "elinewidth": 0.8}
        axes.errorbar(probability, observed, reach, **style, label=f"{when} calibration")
        widths = [0.45 * (each.high - each.low) for each in bins]
        middles = [(each.high + each.low + shift * width) / 2 for each, width in zip(bins, widths, strict=True)]
        below.bar(middles, [each.count for each in bins], width=widths, color=color)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_ylabel("Observed share", fontsize=9)
    below.set_ylabel("Studies", fontsize=9)
    below.set_xlabel("Predicted probability", fontsize=9)
    for part in (axes, below):
        finish_axes(part)
    legend(axes, loc="upper left")
    return figure


def decision_curve(curve: DecisionCurve) -> Figure:
    """Draw net benefit against the threshold probability (Vickers & Elkin, Medical Decision Making 2006)."""
    figure, axes = unit_square("Threshold probability", "Net benefit")
    axes.set_aspect("auto")
    axes.plot(curve.threshold, curve.treat_all, color=FAINT, linewidth=1.4, linestyle="--", label="treat all")
    axes.axhline(0, color=FAINT, linewidth=1.2, linestyle=":", label="treat none")
    axes.plot(curve.threshold, curve.model, color=BLUE, linewidth=1.8, label="this model")
    top = max(curve.prevalence, 0.05)
    axes.set_ylim(-0.3 * top, 1.1 * top)
    legend(axes, loc="lower left")
    return figure


def learning_curves(learning: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw loss and AUROC against the step.

    Args:
      learning: see `ChartData`; may be empty.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, title in ((upper, "loss", "Loss (cross-entropy, nats)"), (lower, "auroc", "AUROC")):
        for split, color in (("train", FAINT), ("validation", BLUE)):
            if curve := learning.get(name, {}).get(split):
                mark = "o" if len(curve.x) < 40 else ""
                axes.plot(*curve, color=color, linewidth=1.5, marker=mark, markersize=3, label=split)
        axes.set_title(title, loc="left", fontsize=9, color=INK)
        finish_axes(axes)
    if validation := learning.get("auroc", {}).get("validation"):
        steps, values = validation
        best = len(values) - 1 - int(np.argmax(values[::-1]))  # of equal ones the latest, as checkpoints are chosen
        label = f"best: {values[best]:.3f} at step {steps[best]:,}"
        lower.plot(steps[best], values[best], "o", color=VERMILLION, markersize=6, zorder=3, label=label)
    for axes in (upper, lower):
        if axes.lines:
            legend(axes, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        else:
            _message(axes, "nothing logged yet")
    lower.set_xlabel("Step (global batches)", fontsize=9)
    return figure
