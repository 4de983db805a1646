"""Domain shift: measurements of a study that are outside of the reference ranges of the training studies."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.data.image_features import map_on_all_cores
from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.workdir import run_id
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError
from tfds_mosmed.preprocessing.appearance import ScanStatistics, scan_statistics
from tfds_mosmed.preprocessing.lung_region import LungFinding

FILE = "typical.json"
MARGIN = 2.0  # spreads that a measurement may lie outside of the percentiles of the training studies
PERCENTILES = (1, 99)  # and not minimum and maximum: one outlier among the training studies must not widen the range


class Flag(NamedTuple):
    """A reason not to trust the prediction for a study.

    Attributes:
      code: one of `CODES`.
      seen: the measurement or finding, in one line.
      expected: the range of the training studies; empty where nothing is compared.
    """

    code: str
    seen: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.seen}" + (f", {self.expected}" if self.expected else "")


class _Check(NamedTuple):
    """Comparison of a field of `ScanStatistics` with its reference range.

    Attributes:
      code: of the flag.
      template: the measurement in words, with a placeholder for the number.
      digits: after the decimal point.
      min_spread: the least spread, see `Range`.
      is_log: whether the spread is that of the natural logarithm.
      grid: for a distance in the source, the field with the same distance on the grid, see `_resolved`.
    """

    code: str
    template: str
    digits: int
    min_spread: float
    is_log: bool = False
    grid: str = ""


_CHECKS = {
    "slice_gap_mm": _Check("slice_gap", "slices {} mm apart", 1, math.log(1.2), True, "grid_gap_mm"),
    "pixel_mm": _Check("pixel_spacing", "pixels of {} mm", 2, math.log(1.2), True, "grid_pixel_mm"),
    "grid_gap_mm": _Check("voxel_size", "slices {} mm apart on the grid", 1, math.log(1.2), True),
    "grid_pixel_mm": _Check("voxel_size", "pixels of {} mm on the grid", 2, math.log(1.2), True),
    "air_hu": _Check("not_hu", "air at {} HU", 0, 25),
    "blood_hu": _Check("contrast", "heart and vessels at {} HU", 0, 10),
    "noise_hu": _Check("kernel", "noise of {} HU on the grid", 1, math.log(1.25), True),
    "lung_hu": _Check("lung_density", "aerated lung at {} HU", 0, 40),
    "lung_litres": _Check("lung_volume", "{} litres of aerated lung", 1, math.log(1.4), True),
    "end_share": _Check("lungs_cut_off", "{} of the widest slice's lung in the first or last slice", 2, 0.05),
}
CODES = ("no_lungs", "anatomy", "not_compared", *dict.fromkeys(check.code for check in _CHECKS.values()))


class Range(NamedTuple):
    """Range of a measurement among the training studies.

    Attributes:
      centre: median.
      spread: standard deviation, estimated by the median absolute deviation, and at least the usual difference between
        scanners of one protocol and patients of one hospital; of the natural logarithm for lengths, volumes and noise.
      low: 1st percentile.
      high: 99th percentile.
    """

    centre: float
    spread: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ReferenceRanges:
    """Reference ranges of a network's training studies.

    Attributes:
      num_studies: number of studies measured.
      ranges: field of `ScanStatistics` -> its range; without fields that could not be measured in any study.
    """

    num_studies: int
    ranges: dict[str, Range]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"num_studies": self.num_studies, "ranges": {n: r._asdict() for n, r in self.ranges.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ReferenceRanges":
        """Load what `to_json` returned.

        Raises:
          ValueError: it is something else.
        """
        try:
            ranges = {
                name: Range(**{key: float(value) for key, value in range_.items()})
                for name, range_ in values["ranges"].items()
            }
            if not all(math.isfinite(value) for range_ in ranges.values() for value in range_):
                raise ValueError("not a number")
            return cls(int(values["num_studies"]), ranges)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not the reference ranges of training studies ({error!r})") from error


def reference_ranges(statistics: Sequence[ScanStatistics]) -> ReferenceRanges:
    """Compute the reference ranges of studies.

    Args:
      statistics: of the training studies, at least one.
    """
    columns = dict(zip(ScanStatistics._fields, np.asarray(statistics, np.float64).T, strict=True))
    finite = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return ReferenceRanges(
        len(statistics), {name: _range(values, _CHECKS[name]) for name, values in finite.items() if len(values)}
    )


def _range(values: np.ndarray, check: _Check) -> Range:
    scaled = np.log(values) if check.is_log else values
    deviation = 1.4826 * float(np.median(np.abs(scaled - np.median(scaled))))
    low, high = np.percentile(values, PERCENTILES)
    return Range(float(np.median(values)), max(deviation, check.min_spread), float(low), float(high))


def merge(several: Sequence[ReferenceRanges]) -> ReferenceRanges:
    """Merge the reference ranges of several networks: the widest range of each field that all have.

    Args:
      several: of each network, at least one. The networks of a cross-validation share most of their training studies,
        so the number of studies is not the sum but the largest.
    """
    merged = {}
    for name in ScanStatistics._fields:
        if all(name in one.ranges for one in several):
            centres, spreads, lows, highs = zip(*(one.ranges[name] for one in several), strict=True)
            merged[name] = Range(float(np.mean(centres)), max(spreads), min(lows), max(highs))
    return ReferenceRanges(max(one.num_studies for one in several), merged)


def flags(
    statistics: ScanStatistics, reference: ReferenceRanges | None, lung_findings: Sequence[LungFinding] = ()
) -> list[Flag]:
    """Return the flags of a study; none for a study like the training studies.

    Args:
      statistics: of the study on the network's grid.
      reference: of the training studies; None where not known, which is flagged too.
      lung_findings: unusual findings about the study's lungs, from its preparation.

    Returns:
      At most one flag for each code.
    """
    found = [Flag(finding.code, finding.message) for finding in lung_findings]
    if math.isnan(statistics.lung_litres):
        found.append(Flag("no_lungs", "no lungs found on the grid"))
    if reference is None:
        found.append(Flag("not_compared", "the reference ranges of the training studies are not known"))
    else:
        values = statistics._asdict()
        found += [
            _flag(_CHECKS[name], values[name], range_)
            for name, range_ in reference.ranges.items()
            if name in _CHECKS and _is_outside(_CHECKS[name], values, name, range_)
        ]
    first: dict[str, Flag] = {}
    for flag in found:
        first.setdefault(flag.code, flag)
    return list(first.values())


def _is_outside(check: _Check, values: Mapping[str, float], name: str, expected: Range) -> bool:
    """Return whether a measurement is far outside of the range of the training studies; NaN is not."""
    value, low, high, margin = values[name], expected.low, expected.high, MARGIN * expected.spread
    if check.grid:
        value, low, high = (_resolved(number, values[check.grid]) for number in (value, low, high))
        margin = MARGIN * check.min_spread  # the scanners' spread is smaller on the grid
    if not check.is_log:
        return value < low - margin or value > high + margin
    return value < low / math.exp(margin) or value > high * math.exp(margin)


def _resolved(source_mm: float, grid_mm: float) -> float:
    """Return the half width of the triangle that is as wide as what a voxel of the grid averages along an axis, mm.

    `resize` weights the source's voxels by a triangle whose half width is the larger distance, and each of these is an
    average over its own width; the variances add. So distances well below the grid's hardly differ.
    """
    return math.hypot(max(source_mm, grid_mm), source_mm * 0.5**0.5)


def _flag(check: _Check, value: float, expected: Range) -> Flag:
    seen, low, high = (f"{number:.{check.digits}f}" for number in (value, expected.low, expected.high))
    return Flag(check.code, check.template.format(seen), f"training studies {low}" + f" to {high}" * (low != high))


def write(workdir: epath.PathLike, records: Sequence[Mapping[str, Any]], rows: np.ndarray) -> None:
    """Measure a run's training studies and write their reference ranges to its workdir, atomically.

    Does nothing where the file exists and can be read.

    Args:
      workdir: the run.
      records: random access to records, from several threads, with the fields "volume", "spacing_mm" and
        "source_spacing_mm".
      rows: indices of the training studies.
    """
    path = epath.Path(workdir) / FILE
    with contextlib.suppress(UserError):  # one that is damaged is written anew
        if read(workdir) is not None:
            return
    statistics = map_on_all_cores(
        lambda record: scan_statistics(record["volume"], record["spacing_mm"], record["source_spacing_mm"]),
        records,
        rows,
        "Measuring the training studies, for flags",
    )
    content = sign(reference_ranges(statistics).to_json(), run_id(workdir))
    storage.write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read(workdir: epath.PathLike) -> ReferenceRanges | None:
    """Read the reference ranges of a run; None where the file does not exist.

    Raises:
      UserError: the file is not as it was written.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        return None
    owner = run_id(workdir)
    try:
        return ReferenceRanges.from_json(check_signed(json.loads(path.read_bytes()), "it", owner))
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it and run python -m covidscan.train again with "
            "the same flags, which writes it"
        ) from error
