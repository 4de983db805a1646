"""Pictures of an evaluation and of learning curves, by Matplotlib, in colours that the colour-blind can tell apart."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Any, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from covidscan.metrics.results import Calibration, DecisionCurve, ReliabilityBin
from covidscan.report.charts import ChartData, Curve
from covidscan.report.explorer import Explorer
from tfds_mosmed.errors import visible

# Okabe & Ito, "Color universal design" (2008).
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = SERIES
INK, FAINT = "#222222", "#767676"
MOST_BANDS = 2  # more hide each other
DPI, MARGIN = 180, 0.08  # of PNGs; inches


def to_png(figure: Figure, dpi: int = DPI, margin: float = MARGIN) -> bytes:
    """Render a figure as PNG, cropped to its content; names of studies and labels are text and not formulas.

    Args:
      figure: the figure.
      dpi: pixels per inch.
      margin: around the content, inches.
    """
    fast = {"compress_level": 3}  # half the time of the default for a hundredth more bytes
    return _render(figure, margin, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs=fast)


def to_svg(figure: Figure) -> bytes:
    """Render a figure as SVG, see `to_png`, with text as text, so that it can be searched and edited.

    Pictures that are drawn smoothly keep their own pixels, which the viewer smooths.
    """
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "covidscan", "font.family": ["DejaVu Sans", "sans-serif"]}
    pictures = [cast(AxesImage, each) for each in figure.findobj(AxesImage)]
    smooth = [each for each in pictures if each.get_interpolation() == "bicubic"]
    for each in smooth:
        each.set_interpolation("none")
    with rc_context(style):
        drawn = _render(figure, MARGIN, format="svg", metadata={"Date": None, "Creator": None}).decode()
    for each in smooth:
        each.set_interpolation("bicubic")
    drawn = drawn.replace(' style="image-rendering:crisp-edges;image-rendering:pixelated"', "")
    return visible(drawn).encode()  # XML has no control characters, which names may have


def _render(figure: Figure, margin: float, **options: Any) -> bytes:
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in (cast(Text, each) for each in figure.findobj(Text)):
        text.set_parse_math(False)
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in any script; SVG has them as text
        # Laid out once, here, and not by a second drawing of each format.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine("none")
        box = figure.get_tightbbox(renderer).padded(margin)
        # Without the version of Matplotlib and the date in it, the same numbers give the same file.
        figure.savefig(data, bbox_inches=box, **options)
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
      data: the curves; up to `MOST_BANDS` are drawn with their bands, see `roc_band`.
      threshold: of the operating point; None where each fold of a cross-validation has its own.
    """
    figure, axes = unit_square("1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.585, "chance", color=FAINT, fontsize=8, rotation=45, rotation_mode="anchor", va="top")
    opacity = 0.15 if len(data.curves) == 1 else 0.1
    for curves, style in zip(data.curves, styles(), strict=False):
        axes.plot(*curves.roc, **style, label=f"{legend_name(curves.name)}: AUROC {curves.auroc:.3f}")
        if len(data.curves) <= MOST_BANDS:
            axes.fill(*curves.band.outline(), color=style["color"], alpha=opacity, linewidth=0)
    if data.operating_dot:
        _mark_operating_point(axes, data.operating_dot, threshold)
    if data.curves:
        legend(axes, loc="lower right")
    else:
        _message(axes, "ROC is not defined:\nevery study has the same label")
    return figure


def _mark_operating_point(axes: Axes, dot: tuple[float, float], threshold: float | None) -> None:
    name = "each fold's threshold" if threshold is None else f"threshold {threshold:.3g}"
    _draw_dot(axes, dot)
    left = dot[0] > 0.5
    axes.annotate(
        f"{name}\nsensitivity {100 * dot[1]:.0f} %\nspecificity {100 - 100 * dot[0]:.0f} %",
        dot,
        xytext=(-8 if left else 8, -8),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=VERMILLION,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _draw_dot(axes: Axes, dot: tuple[float, float], **options: Any) -> None:
    axes.plot(*dot, "o", color=VERMILLION, markersize=6, zorder=3, clip_on=False, **options)


def precision_recall(data: ChartData) -> Figure:
    """Draw the precision-recall curve of each question of the task, with a line at the prevalence.

    The one curve of the explorer's question has a dot at the frozen threshold.
    """
    figure, axes = unit_square("Sensitivity (recall)", "Positive predictive value (precision)")
    for curves, style in zip(data.curves, styles(), strict=False):
        # A step: between two thresholds there is no classifier whose precision lies on a straight line.
        label = f"{legend_name(curves.name)}: {curves.auprc:.3f} ({curves.prevalence:.3f})"
        axes.step(*curves.precision_recall, where="post", **style, label=label)
        axes.axhline(curves.prevalence, color=style["color"], linewidth=0.8, linestyle=(0, (4, 3)))
    frozen = data.explorer.frozen if data.explorer else None
    if data.operating_dot and frozen and frozen.ppv is not None:
        _draw_dot(axes, (data.operating_dot[1], frozen.ppv))
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
            share = f"{100 * shares[row, column]:.0f} %"
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
    """Draw the reliability diagram before and after calibration, and below it the studies of each bin.

    A bin reaches from its lowest to its highest probability; its point is at the mean of them.
    """
    figure = Figure(figsize=(6.4, 4.3), layout="constrained")
    upper, lower = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3.4, 1))
    sides = (("Before calibration", calibration.before.bins), ("After calibration", calibration.after.bins))
    for axes, below, (title, bins), color in zip(upper, lower, sides, (VERMILLION, BLUE), strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        _draw_bins(axes, bins, color)
        low, high, count = np.array([(each.low, each.high, each.count) for each in bins]).reshape(-1, 3).T
        below.bar(low, count, high - low, align="edge", color=[(color, 0.3)], edgecolor=color, linewidth=0.8)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_title(title, loc="left", fontsize=9, color=color)
        below.set_xlabel("Predicted probability", fontsize=9)
        for part in (axes, below):
            finish_axes(part)
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    upper[0].set_ylabel("Observed share", fontsize=9)
    lower[0].set_ylabel("Studies\nin the bin", fontsize=9)
    return figure


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin], color: str) -> None:
    """Draw a cross a bin: its range of probabilities, and the interval of its share, through its point."""
    if not bins:
        return
    mean, observed = np.array([(each.mean_probability, each.observed) for each in bins]).T
    ranges, intervals = (np.array(ends).T for ends in zip(*[((b.low, b.high), b.interval) for b in bins], strict=True))
    # A Wilson interval need not hold its own proportion to the last bit, nor a bin its mean.
    away = np.abs(intervals - observed), np.abs(ranges - mean)
    axes.errorbar(mean, observed, *away, color=color, marker="o", markersize=4, elinewidth=0.9, linestyle="none")


def decision_curve(curve: DecisionCurve, explorer: Explorer | None = None) -> Figure:
    """Draw net benefit against the threshold probability (Vickers & Elkin, Medical Decision Making 2006).

    Args:
      curve: of the model.
      explorer: of the same question; a dot is at its frozen threshold.
    """
    figure, axes = unit_square("Threshold probability", "Net benefit")
    axes.set_aspect("auto")
    axes.plot(curve.threshold, curve.treat_all, color=FAINT, linewidth=1.4, linestyle="--", label="treat all")
    axes.axhline(0, color=FAINT, linewidth=1.2, linestyle=":", label="treat none")
    axes.plot(curve.threshold, curve.model, color=BLUE, linewidth=1.8, label="this model")
    top = max(curve.prevalence, 0.05)
    axes.set_ylim(-0.3 * top, 1.1 * top)
    if explorer and explorer.frozen and explorer.threshold is not None and 0 < explorer.threshold < 1:
        dot = explorer.threshold, explorer.frozen.net_benefit(explorer.threshold)
        _draw_dot(axes, dot, label=f"threshold {explorer.threshold:.3g}")
    legend(axes, loc="lower left")
    return figure


def scores(explorer: Explorer) -> Figure:
    """Draw the predicted probabilities of the studies by reference standard, stacked, with the frozen threshold."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.add_subplot()
    parts = [explorer.score[~explorer.positive], explorer.score[explorer.positive]]
    axes.hist(
        parts, np.linspace(0, 1, 21).tolist(), stacked=True, color=[ORANGE, BLUE], rwidth=0.92, label=explorer.names
    )
    if explorer.threshold is not None:
        axes.axvline(explorer.threshold, color=VERMILLION, label=f"threshold {explorer.threshold:.3g}")
    axes.set_xlabel("Predicted probability", fontsize=9)
    axes.set_ylabel("Studies", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    finish_axes(axes)
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return figure


def learning_curves(learning: Mapping[str, Mapping[str, Curve]], steps_per_epoch: float | None) -> Figure:
    """Draw loss, AUROC or mean absolute error, and learning rate.

    They are drawn against the epoch, or the step where the steps of an epoch are not known.

    Args:
      learning: see `charts.learning`; may be empty.
      steps_per_epoch: of the run.
    """
    titles = {"loss": "Loss (cross-entropy, nats)", "auroc": "AUROC", "learning_rate": "Learning rate"}
    if "mae" in learning:
        titles = {"loss": "Loss (Huber)", "mae": "Mean absolute error", "learning_rate": "Learning rate"}
    shown = [name for name in titles if name != "learning_rate" or name in learning]
    figure = Figure(figsize=(6.4, 2 * len(shown) + 0.8), layout="constrained")
    panels = dict(zip(shown, figure.subplots(len(shown), 1, sharex=True), strict=True))
    per = steps_per_epoch or 1.0
    for name, axes in panels.items():
        for split, color in (("train", FAINT), ("validation", BLUE)):
            if curve := learning.get(name, {}).get(split):
                mark = "o" if len(curve.x) < 40 else ""
                axes.plot(curve.x / per, curve.y, color=color, linewidth=1.5, marker=mark, markersize=3, label=split)
        axes.set_title(titles[name], loc="left", fontsize=9, color=INK)
        finish_axes(axes)
    chosen_by = "mae" if "mae" in learning else "auroc"
    if validation := learning.get(chosen_by, {}).get("validation"):
        steps, values = validation
        latest = -values[::-1] if chosen_by == "mae" else values[::-1]
        best = len(values) - 1 - int(np.argmax(latest))  # of equal ones the latest, as checkpoints are chosen
        label = f"best: {values[best]:.3f} at step {steps[best]:,}"
        panels[chosen_by].plot(
            steps[best] / per, values[best], "o", color=VERMILLION, markersize=6, zorder=3, label=label
        )
    for axes in panels.values():
        if axes.lines:
            legend(axes, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        else:
            _message(axes, "nothing logged yet")
    steps_axis = "Step (global batches)"
    axes.set_xlabel(f"Epoch ({steps_per_epoch:.4g} steps each)" if steps_per_epoch else steps_axis, fontsize=9)
    return figure
