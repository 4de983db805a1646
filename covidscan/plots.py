"""Pictures for print: labelled where the eye is, with units, in colours that the colour-blind tell apart."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics as sk

from covidscan import metrics
from covidscan.predictions import Predictions

# Okabe & Ito, "Color universal design" (2008).
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
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
    axes.text(
        0.5,
        0.5,
        message,
        ha="center",
        va="center",
        transform=axes.transAxes,
        color=FAINT,
        fontsize=9,
        wrap=True,
    )


def _unit_square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.4, 3.4))
    axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    _plain(axes)
    return figure, axes


def question_names(task: str, label_names: Sequence[str]) -> list[str]:
    """Name the yes-or-no questions of `metrics.dichotomies`, in their order."""
    if task == "binary":
        return [label_names[1]]
    if task == "severity":
        return [f"{name} or graver" for name in label_names[1:-1]] + [label_names[-1]]
    return list(label_names)


def _questions(predictions: Predictions) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """List (name, answer, score) of the questions that have both answers among the studies."""
    names = question_names(predictions.task, predictions.label_names)
    found = metrics.dichotomies(predictions.task, predictions.label, predictions.probability)
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


def roc(predictions: Predictions, threshold: float = 0.5) -> Figure:
    """Draw the ROC curve of each question of the task, with the operating point of a binary one."""
    figure, axes = _unit_square("1 − specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.585, "chance", color=FAINT, fontsize=8, rotation=45, rotation_mode="anchor", va="top")
    questions = _questions(predictions)
    for (name, yes, score), style in zip(questions, _styles(), strict=False):
        false_positives, sensitivity, _ = sk.roc_curve(yes, score)
        area = metrics.binary_auroc(yes, score)
        axes.plot(false_positives, sensitivity, **style, label=f"{name}: AUROC {area:.3f}")
    if questions and predictions.task == "binary":
        _, yes, score = questions[0]
        called = score >= threshold
        point = (called[~yes].mean(), called[yes].mean())
        axes.plot(*point, "o", color=VERMILLION, markersize=6, zorder=3, clip_on=False)
        left = point[0] > 0.5
        axes.annotate(
            f"threshold {threshold:.3g}\nsensitivity {point[1]:.0%}\nspecificity {1 - point[0]:.0%}",
            point,
            xytext=(-8 if left else 8, -8),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=VERMILLION,
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    if questions:
        _legend(axes, loc="lower right")
    else:
        _say(axes, "ROC is not defined:\nevery study has the same label")
    return figure


def precision_recall(predictions: Predictions) -> Figure:
    """Draw the precision-recall curve of each question of the task, over the line that guessing gives."""
    figure, axes = _unit_square("Sensitivity (recall)", "Positive predictive value (precision)")
    questions = _questions(predictions)
    for (name, yes, score), style in zip(questions, _styles(), strict=False):
        precision, recall, _ = sk.precision_recall_curve(yes, score)
        area, share = sk.average_precision_score(yes, score), yes.mean()
        # A step: between two thresholds there is no classifier whose precision lies on a straight line.
        label = f"{name}: {area:.3f} ({share:.3f})"
        axes.step(recall, precision, where="post", **style, label=label)
        axes.axhline(share, color=style["color"], linewidth=0.8, linestyle=(0, (4, 3)))
    if questions:
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
            axes.text(
                column,
                row + 0.24,
                f"{shares[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize=8,
                color=color,
            )
    places = range(len(names))
    long = max(map(len, names)) * len(names) > 48
    axes.set_xticks(places, names, rotation=40 if long else 0, ha="right" if long else "center", rotation_mode="anchor")
    axes.set_yticks(places, [f"{name}\n(n = {total})" for name, total in zip(names, counts.sum(1), strict=True)])
    axes.set_xlabel("Prediction", fontsize=9)
    axes.set_ylabel("Reference standard", fontsize=9)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def read_log(path: epath.PathLike) -> dict[str, dict[int, dict[str, float]]]:
    """Read `metrics.jsonl`: split -> step -> figures, steps in order.

    A run that was killed may have left half a line, and after resuming it logs some steps again: half lines
      are
    passed over and the later line of a step counts.
    """
    path, found = epath.Path(path), {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.setdefault(entry["split"], {})[entry["step"]] = entry
    return {split: dict(sorted(steps.items())) for split, steps in found.items()}


def _series(steps: Mapping[int, Mapping[str, float]], name: str) -> tuple[list[int], list[float]]:
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
            steps, values = _series(log.get(split, {}), name)
            if steps:
                mark = "o" if len(steps) < 40 else ""
                axes.plot(steps, values, color=color, linewidth=1.5, marker=mark, markersize=3, label=split)
        axes.set_title(title, loc="left", fontsize=9, color=INK)
        _plain(axes)
    steps, values = _series(log.get("validation", {}), "auroc")
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
