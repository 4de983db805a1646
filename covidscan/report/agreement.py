"""Plots of predicted numbers against the reference standard."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Regression
from covidscan.report.plots import BLUE, FAINT, INK, VERMILLION, finish_axes


def scatter(predictions: Predictions) -> Figure:
    """Draw the predictions against the reference standard, with the line where they are equal."""
    label, value = predictions.label, predictions.probability[:, 0]
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(min(label.min(), value.min())), float(max(label.max(), value.max()))
    margin = 0.04 * (high - low or 1.0)
    ends = [low - margin, high + margin]
    axes.plot(ends, ends, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    _points(axes, label, value)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    _name(axes, "Reference standard", "Prediction")
    return figure


def bland_altman(predictions: Predictions, regression: Regression) -> Figure:
    """Draw the differences against the means of prediction and reference, with bias and limits of agreement."""
    label, value = predictions.label, predictions.probability[:, 0]
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=FAINT, linewidth=0.8)
    lines = (
        ("+1.96 SD", regression.upper, FAINT),
        ("bias", regression.bias, VERMILLION),
        ("−1.96 SD", regression.lower, FAINT),
    )
    for name, metric, color in lines:
        if metric.value is None:
            continue
        axes.axhline(metric.value, color=color, linewidth=1.2, linestyle="-" if name == "bias" else "--")
        if metric.interval:
            axes.axhspan(*metric.interval, color=color, alpha=0.12, linewidth=0)
        text = f"{name} {metric.value:.3g}".replace("-", "−")
        axes.text(1.01, metric.value, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    _points(axes, (label + value) / 2, value - label)
    _name(axes, "Mean of prediction and reference", "Prediction − reference")
    return figure


def residuals(predictions: Predictions) -> Figure:
    """Draw the errors against the reference standard, and their distribution."""
    label, error = predictions.label, predictions.probability[:, 0] - predictions.label
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for axes in (left, right):
        axes.axhline(0, color=FAINT, linewidth=0.8)
    _points(left, label, error)
    right.hist(error, bins=min(20, max(5, round(len(error) ** 0.5))), orientation="horizontal", color=BLUE, rwidth=0.92)
    _name(left, "Reference standard", "Prediction − reference")
    _name(right, "Studies", "")
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    axes.plot(x, y, "o", color=BLUE, markersize=4, alpha=0.6, markeredgewidth=0)


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    finish_axes(axes)
