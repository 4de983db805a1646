"""Pictures of slices with the saliency maps over them, for print and for notebooks."""

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
_OPACITY = 0.75  # where the map is highest; the lung stays visible
_FULL_FROM = 0.45  # share of the maximum from which a colour is fully opaque


def _fading(name: str, *, signed: bool) -> ListedColormap:
    """Return a colour map that fades to transparent towards 0."""
    value = np.linspace(-1 if signed else 0, 1, 256)
    colors = colormaps[name](np.linspace(0, 1, 256))
    colors[:, 3] = _OPACITY * np.clip(np.abs(value) / _FULL_FROM, 0, 1)
    return ListedColormap(colors)


# Both keep their order in greyscale and for colour-blind readers, and differ from the greys of a lung.
GRAD_CAM_COLOURS = _fading("inferno", signed=False)
SIGNED_COLOURS = _fading("PuOr_r", signed=True)


def draw(
    hu: np.ndarray,
    spacing_mm: Sequence[float],
    maps: tuple[np.ndarray, np.ndarray],
    first_slice: tuple[int, int],
    caption: str,
) -> Figure:
    """Draw slices in three rows: the study alone, its Grad-CAM, its integrated gradients.

    Args:
      hu: part of the scan that the maps cover, (slice, row, column).
      spacing_mm: of its voxels.
      maps: Grad-CAM and smoothed integrated gradients in log-odds per ml, on the same voxels.
      first_slice: index of the first of these slices in the scan, and the number of slices in the scan.
      caption: title: the prediction, in one line.
    """
    cam, attributed = maps
    slices = _salient_slices(cam, spacing_mm, SLICES)
    rows, columns = hu.shape[1] * spacing_mm[1], hu.shape[2] * spacing_mm[2]
    height = 1.75 * rows / columns
    figure = Figure(figsize=(1.75 * len(slices) + 1.3, 3 * height + 0.75), layout="constrained")
    figure.suptitle(caption, parse_math=False, fontsize=9, color=INK, x=0.01, ha="left")
    grid = figure.subplots(3, len(slices), squeeze=False)
    strongest = float(np.quantile(np.abs(attributed), 0.999)) or 1.0  # a few outliers would use up the colour scale
    layers: list[tuple[str, np.ndarray | None, Any, Normalize, str]] = [
        ("Study", None, None, Normalize(), ""),
        ("Grad-CAM", cam / (float(cam.max()) or 1.0), GRAD_CAM_COLOURS, Normalize(0, 1), "share of the maximum"),
        ("Integrated gradients", attributed, SIGNED_COLOURS, Normalize(-strongest, strongest), "log-odds per ml"),
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


def _note(axes: Axes, x: float, y: float, text: str, **kwargs: Any) -> None:
    stroke = [withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, text, color="white", fontsize=6.5, path_effects=stroke, transform=axes.transAxes, **kwargs)


def overlay_png(prepared: Prepared, cam: np.ndarray, dpi: int = 110) -> bytes:
    """Draw the slice with the highest Grad-CAM, small, for a notebook.

    Args:
      prepared: the study on the grid.
      cam: Grad-CAM on the grid, (slice, row, column).
      dpi: pixels per inch; the picture is 3 inches wide.

    Returns:
      A PNG.
    """
    number = _salient_slices(cam, prepared.spacing_mm, 1)[0]
    shape, spacing = prepared.volume.shape, prepared.spacing_mm
    figure = Figure(figsize=(3, 3 * shape[1] * spacing[1] / (shape[2] * spacing[2])))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, prepared.volume[number], spacing)
    overlay = cam[number] / (float(cam.max()) or 1.0)
    axes.imshow(overlay, cmap=GRAD_CAM_COLOURS, vmin=0, vmax=1, interpolation="bilinear", aspect=axes.get_aspect())
    _note(axes, 0.03, 0.5, "R", va="center")
    return to_png(figure, dpi)


FOOTNOTE = (
    "Lung window (level −600, width 1500 HU); the patient's right is on the left; slices are counted from the feet. "
    f"Integrated gradients are smoothed over {SMOOTH_MM:g} mm."
)
