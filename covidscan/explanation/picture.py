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

from covidscan.explanation.evidence import SHOWN_FROM
from covidscan.explanation.maps import SMOOTH_MM
from covidscan.report.montage import LUNG_WINDOW
from covidscan.report.plots import INK, to_png
from tfds_mosmed.preprocessing.prepare import Prepared

SLICES = 5  # at most
LEAST_COLUMNS = 3  # that the caption is wide
_SIDE_PIXELS = 15  # of the R of a small picture, which a page may show at half its size
_OPACITY = 0.75  # where the map is highest; the lung stays visible
_DARKEST = 0.35  # share of inferno that is left out, as dark as lung: weak evidence is seen, too
_OPAQUE_FROM = 0.4  # share of the way from the floor to the last colour


def grad_cam_colours(strength: float) -> ListedColormap:
    """Return the colours of a Grad-CAM's shares of its maximum times the strength of the evidence, 0 to 1."""
    return _fading("inferno", SHOWN_FROM * strength, signed=False)


def _fading(name: str, floor: float, *, signed: bool) -> ListedColormap:
    """Return a colour map that is transparent up to a share of its range.

    It keeps its order in greyscale and for colour-blind readers, and differs from the greys of a lung.
    """
    value = np.linspace(-1 if signed else 0, 1, 256)
    above = np.clip((np.abs(value) - floor) / (1 - floor), 0, 1)
    colors = colormaps[name](np.linspace(0, 1, 256) if signed else _DARKEST + (1 - _DARKEST) * above)
    colors[:, 3] = _OPACITY * np.clip(above / _OPAQUE_FROM, 0, 1)
    return ListedColormap(colors)


GRAD_CAM_UNIT = "1: as strong as in validation\nstudies with the label"
OUTLIERS = 0.999  # quantile of the integrated gradients that takes the last colour


def draw(
    hu: np.ndarray,
    spacing_mm: Sequence[float],
    maps: tuple[np.ndarray, np.ndarray],
    slices: Sequence[int],
    first_slice: tuple[int, int],
    strength: float,
    caption: str,
) -> Figure:
    """Draw slices in three rows: the study alone, its Grad-CAM, its integrated gradients.

    Args:
      hu: part of the scan that the maps cover, (slice, row, column).
      spacing_mm: of its voxels.
      maps: Grad-CAM and smoothed integrated gradients in log-odds per ml, on the same voxels.
      slices: those to draw.
      first_slice: index of the first slice of `hu` in the scan, and the number of slices in the scan.
      strength: of the evidence, from 0 to 1; the colours are that much of those of strong evidence.
      caption: title: the prediction, and the evidence.
    """
    cam, attributed = maps
    rows, columns = hu.shape[1] * spacing_mm[1], hu.shape[2] * spacing_mm[2]
    height = 1.75 * rows / columns
    figure = Figure(figsize=(1.75 * max(len(slices), LEAST_COLUMNS) + 1.3, 3 * height + 0.85), layout="constrained")
    figure.suptitle(caption, parse_math=False, fontsize=8, color=INK, x=0.01, ha="left")
    spare = max(LEAST_COLUMNS - len(slices), 0)  # beside the scales
    widths = [1.0] * len(slices) + [0.06] + [float(spare)] * (spare > 0)
    columns = figure.subplots(3, len(widths), width_ratios=widths).T
    grid, scales = columns[: len(slices)].T, columns[len(slices)]
    for axes in columns[len(slices) + 1 :].flat:
        axes.remove()
    # A few outliers would use up the colour scale.
    highest = float(np.quantile(np.abs(attributed), OUTLIERS)) or 1.0
    signed = Normalize(-highest / (strength or 1), highest / (strength or 1))
    layers: list[tuple[str, np.ndarray | None, Any, Normalize, str]] = [
        ("Study", None, None, Normalize(), ""),
        (
            "Grad-CAM",
            strength * cam / (float(cam.max()) or 1.0),
            grad_cam_colours(strength),
            Normalize(0, 1),
            GRAD_CAM_UNIT,
        ),
        (
            "Integrated gradients",
            attributed.clip(-highest, highest),
            _fading("PuOr_r", SHOWN_FROM / 3 * strength, signed=True),
            signed,
            "log-odds per ml",
        ),
    ]
    for line, scale, (name, overlay, colors, norm, unit) in zip(grid, scales, layers, strict=True):
        evident = overlay is not None and strength > 0
        for axes, number in zip(line, slices, strict=True):
            _show(axes, hu[number], spacing_mm)
            if overlay is not None and evident:
                axes.imshow(overlay[number], cmap=colors, norm=norm, interpolation="bicubic", aspect=axes.get_aspect())
        _note(line[0], 0.03, 0.97, name if evident or overlay is None else f"{name}: no evidence", va="top")
        _note(line[0], 0.03, 0.5, "R", va="center")
        if evident:
            figure.colorbar(ScalarMappable(norm, colors), cax=scale).set_label(unit, fontsize=6.5)
        else:
            scale.set_axis_off()
    for axes, number in zip(grid[0], slices, strict=True):
        _note(axes, 0.97, 0.03, f"{first_slice[0] + number + 1}/{first_slice[1]}", ha="right", va="bottom")
    for axes in figure.axes:
        axes.tick_params(labelsize=6, length=2)
    return figure


def _show(axes: Axes, image: np.ndarray, spacing_mm: Sequence[float]) -> None:
    level, width = LUNG_WINDOW
    aspect, lowest, highest = spacing_mm[1] / spacing_mm[2], level - width / 2, level + width / 2
    axes.imshow(image, cmap="gray", vmin=lowest, vmax=highest, interpolation="bicubic", aspect=aspect)
    axes.set_axis_off()


def _note(axes: Axes, x: float, y: float, text: str, fontsize: float = 6.5, **kwargs: Any) -> None:
    stroke = [withStroke(linewidth=fontsize / 4, foreground="black")]
    axes.text(x, y, text, color="white", fontsize=fontsize, path_effects=stroke, transform=axes.transAxes, **kwargs)


def overlay_png(prepared: Prepared, cam: np.ndarray, number: int, strength: float, dpi: int = 110) -> bytes:
    """Draw a slice with its Grad-CAM, small, for a notebook.

    Args:
      prepared: the study on the grid.
      cam: Grad-CAM on the grid, (slice, row, column).
      number: index of the slice.
      strength: of the evidence, from 0 to 1.
      dpi: pixels per inch; the picture is 3 inches wide.

    Returns:
      A PNG.
    """
    shape, spacing = prepared.volume.shape, prepared.spacing_mm
    figure = Figure(figsize=(3, 3 * shape[1] * spacing[1] / (shape[2] * spacing[2])))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, prepared.volume[number], spacing)
    overlay = strength * cam[number] / (float(cam.max()) or 1.0)
    axes.imshow(
        overlay, cmap=grad_cam_colours(strength), vmin=0, vmax=1, interpolation="bicubic", aspect=axes.get_aspect()
    )
    _note(axes, 0.03, 0.5, "R", fontsize=_SIDE_PIXELS * 72 / dpi, va="center")
    return to_png(figure, dpi, margin=0)


FOOTNOTE = (
    "Lung window (level −600, width 1500 HU); the patient's right is on the left; slices are counted from the feet. "
    f"Integrated gradients are smoothed over {SMOOTH_MM:g} mm."
)
