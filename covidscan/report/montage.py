"""Montage of correctly and wrongly predicted studies, as axial slices at the lung window."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from covidscan.metrics import thresholds
from covidscan.metrics.predictions import Predictions, join_names
from covidscan.report.plots import BLUE, FAINT, INK, VERMILLION

LUNG_WINDOW = (-600, 1500)  # level, width in HU
OUTLINE = "#ffd400"  # of lesions; seen on the greys of lung and of soft tissue
SLICES = 3  # of each study
_AIRY, _DENSE = -320, -700  # HU: lung and air are below the first, aerated lung is below the second


class ShownStudy(NamedTuple):
    """A study whose slices are shown.

    Attributes:
      volume: HU, int16, (slice, row, column).
      spacing_mm: of its voxels, (slice, row, column).
      lesion_mask: of the reference standard, on the same voxels, not 0 in lesions; None where there is none.
      evidence: (slice,), 0 or more: the network's for disease or its label, at its peak in the lungs; None where it was
        not computed.
    """

    volume: np.ndarray
    spacing_mm: Sequence[float]
    lesion_mask: np.ndarray | None = None
    evidence: np.ndarray | None = None

    @property
    def is_marked(self) -> bool:
        """Return whether lesions are marked."""
        return self.lesion_mask is not None and bool(self.lesion_mask.any())

    def opening(self) -> tuple[int, str]:
        """Return the slice to show first, and what it has most of: lesion, or evidence, or dense lung."""
        if not self.is_marked and self.evidence is not None and self.evidence.any():
            return int(self.evidence.argmax()), "the network’s highest evidence"
        return self.telling_slices(1)[0], "most lesion" if self.is_marked else "most dense lung"

    def telling_slices(self, count: int) -> list[int]:
        """Pick slices, rising: those with most lesion, or of most dense lung where no lesion is marked.

        Args:
          count: slices at most.
        """
        if self.lesion_mask is None or not self.is_marked:
            return lung_slices(self.volume, self.spacing_mm, count)
        area = np.count_nonzero(self.lesion_mask, axis=(1, 2))
        return pick_slices(np.where(area > 0, area, -1), count)


def choose(
    predictions: Predictions, threshold: thresholds.Threshold = 0.5, each: int = 2
) -> list[tuple[str, list[str]]]:
    """Choose studies to show: the most confident mistakes, and correct predictions of median confidence.

    Args:
      predictions: of a model.
      threshold: operating point.
      each: studies of a kind at most; twice as many for tasks with several labels.

    Returns:
      Kinds that have studies, with study ids: false negative, false positive, true positive and true negative for the
      binary task, largest and median error for regression, wrong and right for the others.
    """
    label = predictions.label
    if predictions.task == "regression":
        return _choose_by_error(predictions, 2 * each)
    prediction = thresholds.decide(predictions.task, predictions.probability, threshold)
    if predictions.task == "multilabel":
        return _choose_sets(predictions, prediction, 2 * each)
    confidence = predictions.probability[np.arange(len(label)), label]  # in the reference label: low in a mistake

    def pick(members: np.ndarray, wrong: bool, most: int) -> list[str]:
        if not members.any():
            return []
        indices = np.flatnonzero(members)
        order = confidence[indices] if wrong else np.abs(confidence[indices] - np.median(confidence[indices]))
        return [predictions.study_id[i] for i in map(int, indices[np.argsort(order, kind="stable")][:most])]

    if predictions.task == "binary":
        kinds = [
            ("False negative", pick((label == 1) & (prediction == 0), True, each)),
            ("False positive", pick((label == 0) & (prediction == 1), True, each)),
            ("True positive", pick((label == 1) & (prediction == 1), False, each)),
            ("True negative", pick((label == 0) & (prediction == 0), False, each)),
        ]
    else:
        right = [study for k in np.unique(label) for study in pick((label == k) & (prediction == k), False, 1)]
        kinds = [("Wrong", pick(label != prediction, True, 2 * each)), ("Right", right[: 2 * each])]
    return [(kind, studies) for kind, studies in kinds if studies]


def pick_slices(amount: np.ndarray, count: int, apart: int = 1, stretch: np.ndarray | None = None) -> list[int]:
    """Pick the slices with the highest amounts.

    Args:
      amount: (slice,), 0 or more, as of dense lung or saliency.
      count: slices at most.
      apart: slices this near to one that is picked are not picked, as they look much the same.
      stretch: (slice,), from 0 to `count` - 1 and rising: one slice of each stretch is picked, even one that is near to
        another.

    Returns:
      Indices, rising.
    """
    left, picked = np.asarray(amount, np.float64).copy(), []
    for k in range(count):
        candidates = left if stretch is None else np.where(stretch == k, left, -2)
        best = int(np.argmax(candidates))
        if stretch is None and candidates[best] < 0:
            break
        picked.append(best)
        left[max(0, best - apart) : best + apart + 1] = -1
    return sorted(picked)


def lung_slices(volume: np.ndarray, spacing_mm: Sequence[float], count: int = SLICES) -> list[int]:
    """Pick the slices with most dense lung, one in each of `count` stretches of equal lung volume.

    Args:
      volume: (slice, row, column), HU.
      spacing_mm: (slice, row, column).
      count: how many.

    Returns:
      Indices from feet to head; evenly spaced ones where no lung is found.
    """
    lung = _lung_mask(volume, spacing_mm)
    below = np.cumsum(lung.sum((1, 2)))
    stretch = np.minimum(below * count // max(below[-1], 1), count - 1)
    if len(np.unique(stretch)) < count:
        return [round(index) for index in np.linspace(0, len(volume) - 1, count + 2)[1:-1]]
    return pick_slices((lung & (volume > _DENSE)).sum((1, 2)), count, stretch=stretch)


def _lung_mask(volume: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Find aerated lung slice by slice, vessels and consolidation up to 16 mm wide included."""
    airy = volume < _AIRY
    in_plane = np.zeros((3, 3, 3), int)
    in_plane[1] = 1
    regions = np.empty(volume.shape, np.int32)
    ndimage.label(airy, structure=in_plane, output=regions)
    edge = np.ones(volume.shape[1:], bool)
    edge[1:-1, 1:-1] = False
    lung = airy & ~np.isin(regions, regions[:, edge])  # air around the body reaches the edge of its slice
    reach = max(1, round(8 / min(spacing_mm[1:])))
    padding = ((0, 0), (reach, reach), (reach, reach))
    closed = np.asarray(ndimage.binary_closing(np.pad(lung, padding), np.ones((1, 3, 3)), reach), bool)
    return closed[:, reach:-reach, reach:-reach]


def _show(axes: Axes, study: ShownStudy) -> None:
    """Show a study's slices side by side, numbered, lesions outlined; the patient's right is on the left of a slice."""
    level, width = LUNG_WINDOW
    volume, spacing_mm, mask, _ = study
    slices = study.telling_slices(SLICES)
    aspect = spacing_mm[1] / spacing_mm[2]
    rows, columns = volume.shape[1:]
    gap = np.full((rows, max(1, columns // 40)), np.nan)
    blank = np.full((rows, SLICES * (columns + gap.shape[1])), np.nan)  # all strips are as long, of few slices too
    strip = np.concatenate([part for number in slices for part in (volume[number], gap)] + [blank], axis=1)
    strip = strip[:, : blank.shape[1] - gap.shape[1]]
    axes.imshow(
        strip,
        cmap="gray",
        vmin=level - width / 2,
        vmax=level + width / 2,
        aspect=aspect,
        interpolation="bicubic",
    )
    note = {"color": "white", "fontsize": 6, "path_effects": [withStroke(linewidth=1.5, foreground="black")]}
    for position, number in enumerate(slices):
        left = position * (columns + gap.shape[1])
        if mask is not None and mask[number].any():
            across = left + np.arange(columns)
            axes.contour(across, np.arange(rows), mask[number] > 0, [0.5], colors=[OUTLINE], linewidths=0.7)
        axes.text(left + 0.02 * columns, 0.97 * rows, f"{number + 1}/{len(volume)}", va="bottom", **note)
    axes.text(0.02 * columns, 0.5 * rows, "R", va="center", **note)
    axes.set(xticks=[], yticks=[])  # those of an axis that is off cost time too
    axes.set_axis_off()


def _choose_by_error(predictions: Predictions, each: int) -> list[tuple[str, list[str]]]:
    """Choose the studies with the largest errors, and those with a median error."""
    error = np.abs(predictions.probability[:, 0] - predictions.label)
    largest = np.argsort(-error, kind="stable")[:each]
    typical = [row for row in np.argsort(np.abs(error - np.median(error)), kind="stable") if row not in largest][:each]
    kinds = (("Largest error", largest), ("Median error", typical))
    return [(kind, [predictions.study_id[row] for row in map(int, rows)]) for kind, rows in kinds if len(rows)]


def _choose_sets(predictions: Predictions, decision: np.ndarray, each: int) -> list[tuple[str, list[str]]]:
    """Choose studies of sets of labels: with the most confident mistakes, and right ones of median confidence."""
    off = np.abs(predictions.label - predictions.probability)
    wrong = np.where(decision != predictions.label, off, -1.0).max(axis=1)
    mistakes = [row for row in np.argsort(-wrong, kind="stable") if wrong[row] >= 0][:each]
    right = np.flatnonzero(wrong < 0)
    worst = off.max(axis=1)
    right = (
        right[np.argsort(np.abs(worst[right] - np.median(worst[right])), kind="stable")][:each] if len(right) else right
    )
    kinds = (("Wrong", mistakes), ("Right", right))
    return [(kind, [predictions.study_id[row] for row in map(int, rows)]) for kind, rows in kinds if len(rows)]


def _caption(predictions: Predictions, study_id: str, prediction: np.ndarray | None) -> str:
    """Return the caption of a study; `prediction` holds the decisions, None of regression."""
    i = list(predictions.study_id).index(study_id)
    shown_id = study_id if len(study_id) <= 40 else f"…{study_id[-39:]}"
    if prediction is None:
        return f"{shown_id}\nreference {predictions.label[i]:.4g} · predicted {predictions.probability[i, 0]:.4g}"
    names = predictions.label_names
    if predictions.task == "multilabel":
        reference, predicted = (join_names(names, sets[i]) for sets in (predictions.label, prediction))
        return f"{shown_id}\nreference {reference} · predicted {predicted}"
    reference = names[predictions.label[i]]
    if predictions.category[i] != reference:
        reference = f"{predictions.category[i]} ({reference})"
    shown = 1 if predictions.task == "binary" else prediction[i]
    return f"{shown_id}\nreference {reference} · P({names[shown]}) = {predictions.probability[i, shown]:.2f}"


def draw(
    predictions: Predictions,
    volumes: Mapping[str, ShownStudy],
    threshold: thresholds.Threshold = 0.5,
) -> Figure:
    """Draw the studies that `choose` returns and `volumes` holds, two a row, at the lung window.

    Args:
      predictions: of a model.
      volumes: study id -> study.
      threshold: operating point.
    """
    prediction = None
    if predictions.task != "regression":
        prediction = thresholds.decide(predictions.task, predictions.probability, threshold)
    rows = []
    for kind, studies in choose(predictions, threshold):
        held = [study_id for study_id in studies if study_id in volumes]
        rows += [(kind, held[start : start + 2]) for start in range(0, len(held), 2)]
    shown = [volumes[study_id] for _, studies in rows for study_id in studies]
    sides = [np.multiply(study.volume.shape, study.spacing_mm) for study in shown]
    tall = max((side[1] / side[2] for side in sides), default=0.5)
    height = 0.45 + tall * 4.7 / SLICES  # inches: the title, and slices that share half the width
    figure = Figure(figsize=(9.6, height * max(len(rows), 1)), layout="constrained")
    if not rows:
        figure.text(0.5, 0.5, "no volumes to show", ha="center", color=FAINT)
    for row, (kind, studies) in enumerate(rows):
        color = BLUE if kind.startswith(("True", "Right", "Median")) else VERMILLION
        for column, study_id in enumerate(studies):
            axes = figure.add_subplot(len(rows), 2, 2 * row + column + 1)
            _show(axes, volumes[study_id])
            axes.set_title(kind, loc="left", fontsize=8.5, color=color, fontweight="bold")
            axes.set_title(_caption(predictions, study_id, prediction), loc="right", fontsize=7, color=INK)
    return figure
