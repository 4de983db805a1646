"""The most telling slices with the evidence over them, for print."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from covidscan.explanation.maps import SMOOTH_MM
from covidscan.report.montage import LUNG_WINDOW, pick_slices
from covidscan.report.plots import INK, to_png
from tfds_mosmed.preprocessing.prepare import Prepared

SLICES = 5
APART_MM = 12.0  # between slices that are shown
_OPACITY = 0.75  # where the evidence is strongest; the lung is still seen
_FULL_FROM = 0.45  # of the strongest


def _see_through(name: str, *, signed: bool) -> ListedColormap:
    """Make a colour map whose colours fade out towards 0."""
    place = np.linspace(-1 if signed else 0, 1, 256)
    colors = colormaps[name](np.linspace(0, 1, 256))
    colors[:, 3] = _OPACITY * np.clip(np.abs(place) / _FULL_FROM, 0, 1)
    return ListedColormap(colors)


# Both tell strong from weak in grey too, and are read by the colour-blind; a lung is neither orange nor blue.
EVIDENCE = _see_through("inferno", signed=False)
FOR_AND_AGAINST = _see_through("PuOr_r", signed=True)


def draw(
    hu: np.ndarray,
    spacing_mm: Sequence[float],
    maps: tuple[np.ndarray, np.ndarray],
    first_slice: tuple[int, int],
    caption: str,
) -> Figure:
    """Draw slices in three rows: the study alone, its Grad-CAM, its integrated gradients.

    Args:
      hu: the part of the scan that the maps cover, (slice, row, column).
      spacing_mm: of its voxels.
      maps: Grad-CAM and smoothed integrated gradients in log-odds per ml, on the same voxels.
      first_slice: number of the first of these slices in the scan, from 0, and how many the scan has.
      caption: the title: what was answered.
    """
    cam, attributed = maps
    slices = _salient_slices(cam, spacing_mm, SLICES)
    rows, columns = hu.shape[1] * spacing_mm[1], hu.shape[2] * spacing_mm[2]
    height = 1.75 * rows / columns
    figure = Figure(figsize=(1.75 * len(slices) + 1.3, 3 * height + 0.75), layout="constrained")
    figure.suptitle(caption, parse_math=False, fontsize=9, color=INK, x=0.01, ha="left")
    grid = figure.subplots(3, len(slices), squeeze=False)
    strongest = float(np.quantile(np.abs(attributed), 0.999)) or 1.0  # a few grains would take all the colour
    layers: list[tuple[str, np.ndarray | None, Any, Normalize, str]] = [
        ("Study", None, None, Normalize(), ""),
        ("Grad-CAM", cam / (float(cam.max()) or 1.0), EVIDENCE, Normalize(0, 1), "share of the highest"),
        ("Integrated gradients", attributed, FOR_AND_AGAINST, Normalize(-strongest, strongest), "log-odds per ml"),
    ]
    for line, (name, overlay, colors, scale, unit) in zip(grid, layers, strict=True):
        for axes, number in zip(line, slices, strict=True):
            _show(axes, hu[number], spacing_mm)
            if overlay is not None:
                axes.imshow(
                    overlay[number], cmap=colors, norm=scale, interpolation="bilinear", aspect=axes.get_aspect()
                )
        _note(line[0], 0.03, 0.97, name, va="top")
        _note(line[0], 0.03, 0.5, "R", va="center")
        if overlay is not None:
            figure.colorbar(ScalarMappable(scale, colors), ax=list(line), aspect=12, pad=0.01).set_label(
                unit, fontsize=7
            )
    for axes, number in zip(grid[0], slices, strict=True):
        _note(axes, 0.97, 0.03, f"{first_slice[0] + number + 1}/{first_slice[1]}", ha="right", va="bottom")
    for axes in figure.axes:
        axes.tick_params(labelsize=6, length=2)
    return figure


def _salient_slices(cam: np.ndarray, spacing_mm: Sequence[float], count: int) -> list[int]:
    return pick_slices(cam.sum(axis=(1, 2), dtype=np.float64), count, apart=int(APART_MM // spacing_mm[0]))


def _show(axes: Axes, image: np.ndarray, spacing_mm: Sequence[float]) -> None:
    level, width = LUNG_WINDOW
    aspect, lowest, highest = spacing_mm[1] / spacing_mm[2], level - width / 2, level + width / 2
    axes.imshow(image, cmap="gray", vmin=lowest, vmax=highest, interpolation="bicubic", aspect=aspect)
    axes.set_axis_off()


def _note(axes: Axes, x: float, y: float, text: str, **place: Any) -> None:
    stroke = [withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, text, color="white", fontsize=6.5, path_effects=stroke, transform=axes.transAxes, **place)


def overlay_png(prepared: Prepared, cam: np.ndarray, dpi: int = 110) -> bytes:
    """Draw the slice with most evidence, small, for a notebook.

    Args:
      prepared: the study on the grid.
      cam: Grad-CAM on the grid, (slice, row, column).
      dpi: pixels an inch; the picture is some 3 inches wide.

    Returns:
      A PNG.
    """
    number = _salient_slices(cam, prepared.spacing_mm, 1)[0]
    shape, spacing = prepared.volume.shape, prepared.spacing_mm
    figure = Figure(figsize=(3, 3 * shape[1] * spacing[1] / (shape[2] * spacing[2])))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, prepared.volume[number], spacing)
    overlay = cam[number] / (float(cam.max()) or 1.0)
    axes.imshow(overlay, cmap=EVIDENCE, vmin=0, vmax=1, interpolation="bilinear", aspect=axes.get_aspect())
    _note(axes, 0.03, 0.5, "R", va="center")
    return to_png(figure, dpi)


FOOTNOTE = (
    "Lung window (level −600, width 1500 HU); the patient's right on the left; slices counted from the feet. "
    f"Integrated gradients are smoothed over {SMOOTH_MM:g} mm."
)
