"""Table, plot and pictures of the sensitivity to inserted lesions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covidscan.metrics.detectability import (
    INTERVAL_METHOD,
    RELIABLE,
    Detectability,
    Detection,
    by_density,
    smallest_reliable,
)
from covidscan.metrics.interval_methods import Interval
from covidscan.report.console import text_table
from covidscan.report.montage import LUNG_WINDOW
from covidscan.report.plots import FAINT, INK, SERIES, finish_axes, legend
from covidscan.report.wording import signed
from tfds_mosmed.progress import fitted

CAVEAT = (
    "This is the sensitivity to inserted lesions, one in a scan at a time. It is not accuracy: inserted lesions are "
    "not patients' lesions, and false alarms are not measured."
)
MOST_COLUMNS = 5


class Example(NamedTuple):
    """Picture of an inserted lesion.

    Attributes:
      kind, density_hu, diameter_mm: of the lesion.
      without: HU (row, column), the slice as it is.
      painted: the same with the lesion.
      spacing_mm: of the pixels, (row, column).
    """

    kind: str
    density_hu: float
    diameter_mm: float
    without: np.ndarray
    painted: np.ndarray
    spacing_mm: tuple[float, float]


def name_of(kind: str, density_hu: float) -> str:
    """Name lesions of a density."""
    return f"{kind.replace('_', ' ')} of {density_hu:g} HU".replace("-", "−")


def percent(share: float | None) -> str:
    """Format a share."""
    return "not known" if share is None else f"{share:.0%}"


def percent_interval(interval: Interval | None) -> str:
    """Format the interval of a share."""
    return "" if interval is None else f"{interval[0]:.0%} to {interval[1]:.0%}"


def change(value: float | None) -> str:
    """Format a change in log-odds."""
    return "" if value is None else signed(value, 2)


def change_interval(interval: Interval | None) -> str:
    """Format the interval of a change in log-odds."""
    return "" if interval is None else f"{change(interval[0])} to {change(interval[1])}"


def answers(detections: Sequence[Detection]) -> list[str]:
    """Write a sentence for each density: the smallest diameter that is detected reliably, and of how many lesions."""
    return [
        f"{name_of(kind, density).capitalize().replace(' hu', ' HU')}: {_answer(group)}."
        for (kind, density), group in by_density(detections).items()
    ]


def _answer(group: Sequence[Detection]) -> str:
    known = [each for each in group if each.share is not None]
    if not known:
        inserted = any(each.insertions for each in group)
        return f"not known, {'every scan with one is positive without it' if inserted else 'none could be inserted'}"
    smallest, largest = smallest_reliable(known), known[-1]
    if smallest is not None:
        reliable = [each for each in known if each.diameter_mm >= smallest]
        up_to = f" up to {largest.diameter_mm:g} mm" if len(reliable) > 1 else ""
        least_sure = min(reliable, key=lambda each: each.share_interval or (0, 0))
        return f"at least {RELIABLE:.0%} are detected from {smallest:g} mm{up_to} ({_certainty(least_sure)})"
    if max(each.share or 0 for each in known) < RELIABLE:
        found = f"fewer than {RELIABLE:.0%} are detected up to"
    else:
        found = "not reliably detected up to"
    return f"{found} {largest.diameter_mm:g} mm ({_certainty(largest)})"


def _certainty(one: Detection) -> str:
    insertions, scans = (
        f"{count} {name}{'s' * (count != 1)}" for count, name in ((one.counted, "insertion"), (one.scans, "scan"))
    )
    return f"at {one.diameter_mm:g} mm {insertions} into {scans}, 95 % interval {percent_interval(one.share_interval)}"


def scans_line(result: Detectability) -> str:
    """Count the scans, and those in which nothing can be detected."""
    positive = sum(scan.positive for scan in result.scans)
    line = f"{len(result.scans)} scan{'s' * (len(result.scans) != 1)}, threshold {result.threshold:.3g}"
    if positive:
        line += f"; {positive} positive without a lesion: only the change in log-odds counts there"
    left_out = sum(scan.not_inserted for scan in result.scans)
    if left_out:
        line += f"; {left_out} lesions without enough lung, or hardly denser than it, left out"
    return f"{line}."


def table(result: Detectability) -> str:
    """Format the result as plain text."""
    rows = [("lesions", "insertions", "detected", "95 % interval", "change in log-odds", "95 % interval")]
    rows += [
        (
            f"{name_of(each.kind, each.density_hu)}, {each.diameter_mm:g} mm",
            str(each.insertions),
            percent(each.share),
            percent_interval(each.share_interval),
            change(each.change),
            change_interval(each.change_interval),
        )
        for group in by_density(result.detections).values()
        for each in group
    ]
    notes = [scans_line(result), *answers(result.detections), f"Intervals of shares: {INTERVAL_METHOD}.", CAVEAT]
    return "\n\n".join([text_table(rows), fitted("\n".join(notes))])


def plot(detections: Sequence[Detection]) -> Figure:
    """Draw the share detected, and the change in log-odds, against the diameter: a line for each density."""
    figure = Figure(figsize=(6.8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    groups = by_density(detections)
    for number, ((kind, density), group) in enumerate(groups.items()):
        style = {
            "color": SERIES[number % len(SERIES)],
            "linewidth": 1.5,
            "marker": "os^Dv<"[number % 6],
            "markersize": 4,
        }
        # Side by side, so that intervals do not hide each other.
        shift = 1 + 0.025 * (number - (len(groups) - 1) / 2)
        for axes, values in (
            (left, [(one.diameter_mm, one.share, one.share_interval) for one in group]),
            (right, [(one.diameter_mm, one.change, one.change_interval) for one in group]),
        ):
            known = [(shift * x, y, reach or (y, y)) for x, y, reach in values if y is not None]
            if known:
                x, y, reach = map(np.array, zip(*known, strict=True))
                away = np.maximum(np.abs(reach.T - y), 0)
                axes.errorbar(x, y, away, **style, elinewidth=0.7, label=name_of(kind, density))
            elif axes is right:
                axes.plot([], [], **style, label=f"{name_of(kind, density)}: none inserted")
    left.axhline(RELIABLE, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    left.set(ylim=(-0.03, 1.03))
    left.set_ylabel("Share of inserted lesions detected", fontsize=9)
    right.axhline(0, color=FAINT, linewidth=0.8)
    right.set_ylabel("Change in log-odds", fontsize=9)
    ticks = sorted({each.diameter_mm for each in detections})
    for axes in (left, right):
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.set_xlabel("Diameter of the lesion, mm", fontsize=9)
        finish_axes(axes)
    legend(right, loc="upper left")
    return figure


def draw_examples(examples: Sequence[Example]) -> Figure:
    """Draw lesions of one scan: a row for each density, without the largest lesion on the left, then by diameter."""
    rows: dict[tuple[str, float], list[Example]] = {}
    for each in sorted(examples, key=lambda one: (one.density_hu, one.diameter_mm)):
        rows.setdefault((each.kind, each.density_hu), []).append(each)
    columns = min(MOST_COLUMNS, max(map(len, rows.values())))
    figure = Figure(figsize=(1.7 * (columns + 1), 1.8 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns + 1, squeeze=False)
    for line, ((kind, density), group) in zip(grid, rows.items(), strict=True):
        chosen = [group[k] for k in np.unique(np.linspace(0, len(group) - 1, columns).round().astype(int))]
        _show(line[0], chosen[-1].without, chosen[-1].spacing_mm, "without")
        line[0].set_ylabel(name_of(kind, density).replace(" of ", "\n"), fontsize=7, color=INK)
        for axes, each in zip(line[1:], chosen, strict=False):
            _show(axes, each.painted, each.spacing_mm, f"{each.diameter_mm:g} mm")
        for axes in line[1 + len(chosen) :]:
            axes.set_axis_off()
    return figure


def _show(axes: Axes, image: np.ndarray, spacing_mm: Sequence[float], title: str) -> None:
    level, width = LUNG_WINDOW
    axes.imshow(
        image,
        cmap="gray",
        vmin=level - width / 2,
        vmax=level + width / 2,
        interpolation="bicubic",
        aspect=spacing_mm[0] / spacing_mm[1],
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=7, color=INK, pad=2)
