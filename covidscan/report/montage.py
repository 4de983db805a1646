"""A handful of studies, right and wrong, as the slices a radiologist would look at."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from covidscan.metrics import thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.report.plots import BLUE, FAINT, INK, VERMILLION

LUNG_WINDOW = (-600, 1500)  # level, width in HU
SLICES = 3  # of each study
_AIRY, _DENSE = -320, -700  # HU: below the first is lung or air; aerated lung is below the second


def choose(
    predictions: Predictions, threshold: thresholds.Threshold = 0.5, each: int = 2
) -> list[tuple[str, list[str]]]:
    """Choose studies to show: the most confident mistakes, and right answers of median confidence.

    Args:
      predictions: of a model.
      threshold: operating point.
      each: studies of a kind at most; of the tasks with several labels twice as many.

    Returns:
      Kinds that have studies, with study ids: false negative, false positive, true positive and true negative
        for the
      binary task, wrong and right for the others.
    """
    label = predictions.label
    prediction = thresholds.decide(predictions.task, predictions.probability, threshold)
    sure = predictions.probability[np.arange(len(label)), label]  # of the reference label: low in a mistake

    def pick(members: np.ndarray, wrong: bool, most: int) -> list[str]:
        positions = np.flatnonzero(members)
        order = sure[positions] if wrong else np.abs(sure[positions] - np.median(sure[positions]))
        chosen = positions[np.argsort(order, kind="stable")][:most]
        return [predictions.study_id[i] for i in map(int, chosen)]

    if predictions.task == "binary":
        kinds = [
            ("False negative", (label == 1) & (prediction == 0), True),
            ("False positive", (label == 0) & (prediction == 1), True),
            ("True positive", (label == 1) & (prediction == 1), False),
            ("True negative", (label == 0) & (prediction == 0), False),
        ]
        return [(kind, pick(members, wrong, each)) for kind, members, wrong in kinds if members.any()]
    wrong = pick(label != prediction, True, 2 * each) if np.any(label != prediction) else []
    right = [study for k in np.unique(label) for study in _first(pick, (label == k) & (prediction == k))]
    kinds = (("Wrong", wrong), ("Right", right[: 2 * each]))
    return [(kind, studies) for kind, studies in kinds if studies]


def _first(pick, members: np.ndarray) -> list[str]:
    return pick(members, False, 1) if members.any() else []


def telling_slices(volume: np.ndarray, spacing_mm: Sequence[float], count: int = SLICES) -> list[int]:
    """Choose the slices that hold most dense lung, one in each of `count` stretches of equal lung volume.

    Args:
      volume: (slice, row, column), HU.
      spacing_mm: (slice, row, column).
      count: how many.

    Returns:
      Slice numbers from feet to head; evenly spaced ones where no lung is seen.
    """
    airy = volume < _AIRY
    in_plane = np.zeros((3, 3, 3), int)
    in_plane[1] = 1
    regions = np.empty(volume.shape, np.int32)
    ndimage.label(airy, structure=in_plane, output=regions)
    edge = np.ones(volume.shape[1:], bool)
    edge[1:-1, 1:-1] = False
    lung = airy & ~np.isin(regions, regions[:, edge])  # air around the body reaches the edge of its slice
    reach = max(1, round(8 / min(spacing_mm[1:])))  # closes over vessels and consolidation up to 16 mm wide
    padding = ((0, 0), (reach, reach), (reach, reach))
    closed = np.asarray(ndimage.binary_closing(np.pad(lung, padding), np.ones((1, 3, 3)), reach), bool)
    lung = closed[:, reach:-reach, reach:-reach]
    below = np.cumsum(lung.sum((1, 2)))
    stretch = np.minimum(below * count // max(below[-1], 1), count - 1)
    if len(np.unique(stretch)) < count:
        return [round(place) for place in np.linspace(0, len(volume) - 1, count + 2)[1:-1]]
    dense, chosen = (lung & (volume > _DENSE)).sum((1, 2)), []
    for k in range(count):
        chosen.append(int(np.argmax(np.where(stretch == k, dense, -2))))
        dense[chosen[-1] + 1 : chosen[-1] + 2] = -1  # the next slice would show much the same
    return chosen


def _show(axes: Axes, volume: np.ndarray, spacing_mm: Sequence[float]) -> None:
    """Show a study's slices side by side, each numbered; the patient's right is on the left of a slice."""
    level, width = LUNG_WINDOW
    slices = telling_slices(volume, spacing_mm)
    aspect = spacing_mm[1] / spacing_mm[2]
    rows, columns = volume.shape[1:]
    gap = np.full((rows, max(1, columns // 40)), np.nan)
    strip = np.concatenate([part for number in slices for part in (volume[number], gap)][:-1], axis=1)
    axes.imshow(
        strip,
        cmap="gray",
        vmin=level - width / 2,
        vmax=level + width / 2,
        aspect=aspect,
        interpolation="bicubic",
    )
    note = {"color": "white", "fontsize": 6, "path_effects": [withStroke(linewidth=1.5, foreground="black")]}
    for place, number in enumerate(slices):
        left = place * (columns + gap.shape[1])
        axes.text(left + 0.02 * columns, 0.97 * rows, f"{number + 1}/{len(volume)}", va="bottom", **note)
    axes.text(0.02 * columns, 0.5 * rows, "R", va="center", **note)
    axes.set_axis_off()


def _caption(predictions: Predictions, study_id: str, prediction: np.ndarray) -> str:
    i = list(predictions.study_id).index(study_id)
    names, given = predictions.label_names, prediction[i]
    reference = names[predictions.label[i]]
    if predictions.category[i] != reference:
        reference = f"{predictions.category[i]} ({reference})"
    shown = 1 if predictions.task == "binary" else given
    shown_id = study_id if len(study_id) <= 40 else f"…{study_id[-39:]}"
    return f"{shown_id}\nreference {reference} · P({names[shown]}) = {predictions.probability[i, shown]:.2f}"


def draw(
    predictions: Predictions,
    volumes: Mapping[str, tuple[np.ndarray, Sequence[float]]],
    threshold: thresholds.Threshold = 0.5,
) -> Figure:
    """Draw the studies that `choose` names and `volumes` holds, two a row, at the lung window.

    Args:
      predictions: of a model.
      volumes: study id -> (HU (slice, row, column); spacing in mm, same order).
      threshold: operating point.
    """
    prediction = thresholds.decide(predictions.task, predictions.probability, threshold)
    rows = []
    for kind, studies in choose(predictions, threshold):
        held = [study_id for study_id in studies if study_id in volumes]
        rows += [(kind, held[start : start + 2]) for start in range(0, len(held), 2)]
    shown = [volumes[study_id] for _, studies in rows for study_id in studies]
    tall = max((volume.shape[1] * mm[1] / (volume.shape[2] * mm[2]) for volume, mm in shown), default=0.5)
    height = 0.45 + tall * 4.7 / SLICES  # inches: the title, and slices that share half the width
    figure = Figure(figsize=(9.6, height * max(len(rows), 1)), layout="constrained")
    if not rows:
        figure.text(0.5, 0.5, "no volumes to show", ha="center", color=FAINT)
    for row, (kind, studies) in enumerate(rows):
        color = BLUE if kind.startswith(("True", "Right")) else VERMILLION
        for column, study_id in enumerate(studies):
            axes = figure.add_subplot(len(rows), 2, 2 * row + column + 1)
            _show(axes, *volumes[study_id])
            axes.set_title(kind, loc="left", fontsize=8.5, color=color, fontweight="bold")
            axes.set_title(_caption(predictions, study_id, prediction), loc="right", fontsize=7, color=INK)
    return figure
