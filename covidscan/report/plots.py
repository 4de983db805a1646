"""Pictures for print: labelled where the eye is, with units, in colours that the colour-blind tell apart."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics as sk

from covidscan.metrics import classification, thresholds
from covidscan.metrics.predictions import Predictions

# Okabe & Ito, "Color universal design" (2008).
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = SERIES
INK, FAINT = "#222222", "#767676"


def to_png(figure: Figure, dpi: int = 180) -> bytes:
    """Draw a figure as PNG, with no more margin than its content needs."""
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    # Without the version of Matplotlib in it, the same numbers give the same file.
    figure.savefig(data, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return data.getvalue()


def _plain(axes: Axes) -> None:
    """Leave two thin axis lines and small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=8, length=3)


def _say(axes: Axes, message: str) -> None:
    """Write a message where a curve would be."""
    place = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, message, color=FAINT, fontsize=9, wrap=True, **place)


def _unit_square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.4, 3.4))
    axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    _plain(axes)
    return figure, axes


def question_names(task: str, label_names: Sequence[str]) -> list[str]:
    """Name the yes-or-no questions of `decisions.dichotomies`, in their order."""
    if task == "binary":
        return [label_names[1]]
    if task == "severity":
        return [f"{name} or graver" for name in label_names[1:-1]] + [label_names[-1]]
    return list(label_names)


def questions(predictions: Predictions) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """List (name, answer, score) of the questions that have both answers among the studies."""
    names = question_names(predictions.task, predictions.label_names)
    found = thresholds.dichotomies(predictions.task, predictions.label, predictions.probability)
    return [(name, yes, score) for name, (yes, score) in zip(names, found, strict=True) if 0 < yes.sum() < len(yes)]


def _legend(axes: Axes, **place: Any) -> None:
    """Name the curves in their own colours: inside the axes, or beside them where they are many."""
    if len(axes.get_legend_handles_labels()[1]) > len(SERIES):
        place |= {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
    axes.legend(
        fontsize=8,
        labelcolor="linecolor",
        handlelength=1.2,
        facecolor="white",
        edgecolor="none",
        framealpha=0.85,
        borderpad=0.2,
        **place,
    )


def roc(predictions: Predictions, threshold: thresholds.Threshold = 0.5) -> Figure:
    """Draw the ROC curve of each question of the task, with the operating point of a binary one."""
    figure, axes = _unit_square("1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.585, "chance", color=FAINT, fontsize=8, rotation=45, rotation_mode="anchor", va="top")
    asked = questions(predictions)
    for (name, yes, score), style in zip(asked, _styles(), strict=False):
        false_positives, sensitivity, _ = sk.roc_curve(yes, score)
        area = classification.binary_auroc(yes, score)
        axes.plot(false_positives, sensitivity, **style, label=f"{name}: AUROC {area:.3f}")
    if asked and predictions.task == "binary":
        _, yes, score = asked[0]
        called = score >= threshold
        name = "each fold's threshold" if isinstance(threshold, np.ndarray) else f"threshold {threshold:.3g}"
        point = (called[~yes].mean(), called[yes].mean())
        axes.plot(*point, "o", color=VERMILLION, markersize=6, zorder=3, clip_on=False)
        left = point[0] > 0.5
        axes.annotate(
            f"{name}\nsensitivity {point[1]:.0%}\nspecificity {1 - point[0]:.0%}",
            point,
            xytext=(-8 if left else 8, -8),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=VERMILLION,
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    if asked:
        _legend(axes, loc="lower right")
    else:
        _say(axes, "ROC is not defined:\nevery study has the same label")
    return figure


def precision_recall(predictions: Predictions) -> Figure:
    """Draw the precision-recall curve of each question of the task, over the line that guessing gives."""
    figure, axes = _unit_square("Sensitivity (recall)", "Positive predictive value (precision)")
    asked = questions(predictions)
    for (name, yes, score), style in zip(asked, _styles(), strict=False):
        precision, recall, _ = sk.precision_recall_curve(yes, score)
        area, share = sk.average_precision_score(yes, score), yes.mean()
        # A step: between two thresholds there is no classifier whose precision lies on a straight line.
        label = f"{name}: {area:.3f} ({share:.3f})"
        axes.step(recall, precision, where="post", **style, label=label)
        axes.axhline(share, color=style["color"], linewidth=0.8, linestyle=(0, (4, 3)))
    if asked:
        _legend(axes, loc="lower left", title="AUPRC (of always positive)", title_fontsize=8)
    else:
        _say(axes, "Precision and recall are not defined:\nevery study has the same label")
    return figure


def _styles() -> Iterator[dict[str, Any]]:
    """Yield how each curve is drawn: six colours, then the same ones dotted."""
    for line, color in cycle(product(("-", ":", "-."), SERIES)):
        yield {"color": color, "linestyle": line, "linewidth": 1.8}


def confusion_matrix(result: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix that `judge.judge` gave: studies, and their share of each reference label."""
    counts, names = np.asarray(result["confusion_matrix"]), result["label_names"]
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
    places = range(len(names))
    long = max(map(len, names)) * len(names) > 48
    axes.set_xticks(places, names, rotation=40 if long else 0, ha="right" if long else "center", rotation_mode="anchor")
    axes.set_yticks(places, [f"{name}\n(n = {total})" for name, total in zip(names, counts.sum(1), strict=True)])
    axes.set_xlabel("Prediction", fontsize=9)
    axes.set_ylabel("Reference standard", fontsize=9)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """Draw the reliability diagram before and after calibration, over a histogram of the predictions.

    Args:
      calibration: `judge.judge`'s: "before" and "after", each with "bins".
    """
    figure = Figure(figsize=(3.4, 4.3))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    for (when, color, mark), shift in zip((("before", VERMILLION, "s"), ("after", BLUE, "o")), (-1, 1), strict=True):
        bins = calibration[when]["bins"]
        place, observed = ([found[name] for found in bins] for name in ("mean_probability", "observed"))
        # A Wilson interval need not hold its own proportion to the last bit.
        reach = np.abs(np.asarray([found["interval"] for found in bins]).T - observed) if bins else None
        style = {"color": color, "linewidth": 1.4, "marker": mark, "markersize": 4, "elinewidth": 0.8}
        axes.errorbar(place, observed, reach, **style, label=f"{when} calibration")
        wide = [0.45 * (found["high"] - found["low"]) for found in bins]
        middle = [(found["high"] + found["low"] + shift * width) / 2 for found, width in zip(bins, wide, strict=True)]
        below.bar(middle, [found["count"] for found in bins], width=wide, color=color)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_ylabel("Observed share", fontsize=9)
    below.set_ylabel("Dataset", fontsize=9)
    below.set_xlabel("Predicted probability", fontsize=9)
    for part in (axes, below):
        _plain(part)
    _legend(axes, loc="upper left")
    return figure


def decision_curve(curve: Mapping[str, Any], threshold: float | None = None) -> Figure:
    """Draw net benefit against the threshold probability (Vickers & Elkin, Medical Decision Making 2006).

    Args:
      curve: `judge.judge`'s: "threshold", "model", "treat_all" and "prevalence".
      threshold: operating point, marked where given.
    """
    figure, axes = _unit_square("Threshold probability", "Net benefit")
    axes.set_aspect("auto")
    axes.plot(curve["threshold"], curve["treat_all"], color=FAINT, linewidth=1.4, linestyle="--", label="treat all")
    axes.axhline(0, color=FAINT, linewidth=1.2, linestyle=":", label="treat none")
    axes.plot(curve["threshold"], curve["model"], color=BLUE, linewidth=1.8, label="this model")
    if threshold is not None:
        benefit = np.interp(threshold, curve["threshold"], curve["model"])
        axes.plot(threshold, benefit, "o", color=VERMILLION, markersize=6, zorder=3, label=f"threshold {threshold:.3g}")
    top = max(curve["prevalence"], 0.05)
    axes.set_ylim(-0.3 * top, 1.1 * top)
    _legend(axes, loc="lower left")
    return figure


def read_log(path: epath.PathLike) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Read `metrics.jsonl`: split -> step -> figures, steps in order.

    A run that was killed may have left half a line: it is passed over. After resuming it logs some steps again.
    """
    path, entries = epath.Path(path), []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return by_split(entries)


def by_split(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Sort lines of `metrics.jsonl`: split -> step -> figures, steps in order; the later line of a step counts."""
    found = {}
    for entry in entries:
        found.setdefault(entry["split"], {})[entry["step"]] = entry
    return {split: dict(sorted(steps.items())) for split, steps in found.items()}


def series(steps: Mapping[int, Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """List the steps at which a figure was logged as a number, and the figure."""
    points = [(step, entry[name]) for step, entry in steps.items() if entry.get(name) is not None]
    finite = [(step, value) for step, value in points if np.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def learning_curves(metrics_jsonl_path: epath.PathLike, png_path: epath.PathLike) -> None:
    """Draw loss and AUROC against the step.

    Args:
      metrics_jsonl_path: lines {"step", "split": "train" or "validation", "loss", "auroc", …}; figures that
        are absent, null or not finite leave a gap. The file may be absent or empty.
      png_path: written, over what is there.
    """
    log = read_log(metrics_jsonl_path)
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, title in ((upper, "loss", "Loss (cross-entropy, nats)"), (lower, "auroc", "AUROC")):
        for split, color in (("train", FAINT), ("validation", BLUE)):
            steps, values = series(log.get(split, {}), name)
            if steps:
                mark = "o" if len(steps) < 40 else ""
                axes.plot(steps, values, color=color, linewidth=1.5, marker=mark, markersize=3, label=split)
        axes.set_title(title, loc="left", fontsize=9, color=INK)
        _plain(axes)
    steps, values = series(log.get("validation", {}), "auroc")
    if steps:
        best = len(values) - 1 - int(np.argmax(values[::-1]))  # of equals the latest, as checkpoints are chosen
        label = f"best: {values[best]:.3f} at step {steps[best]:,}"
        lower.plot(steps[best], values[best], "o", color=VERMILLION, markersize=6, zorder=3, label=label)
    for axes in (upper, lower):
        if axes.lines:
            _legend(axes, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        else:
            _say(axes, "nothing logged yet")
    lower.set_xlabel("Step (global batches)", fontsize=9)
    epath.Path(png_path).write_bytes(to_png(figure))
