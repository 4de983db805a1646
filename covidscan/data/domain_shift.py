"""Guard rails: which studies do not look like those that a network was trained on, and in what."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.data.image_features import on_all_cores
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.appearance import ScanStatistics, scan_statistics
from tfds_mosmed.preprocessing.lung_region import LungFinding

FILE = "typical.json"
SPREADS_BEYOND = 2.0  # by which a study may lie beyond the training studies' 1st and 99th percentiles
SHARES = (1, 99)  # percentiles: a single odd training study makes no other one typical


class Flag(NamedTuple):
    """A reason not to trust what a network says of a study.

    Attributes:
      code: one of `CODES`.
      seen: what was seen, in a line.
      expected: what the training studies have; empty where nothing is compared.
    """

    code: str
    seen: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.seen}" + (f", {self.expected}" if self.expected else "")


class _Check(NamedTuple):
    """How a number of `ScanStatistics` is compared.

    Attributes:
      code: of the flag.
      words: what was measured, with a place for the number.
      digits: after the point.
      min_spread: what scanners of one protocol and patients of one hospital differ by, see `Range`.
      by_factor: whether studies differ in it by factors; then spreads are of its natural logarithm.
    """

    code: str
    words: str
    digits: int
    min_spread: float
    by_factor: bool = False


_CHECKS = {
    "slice_gap_mm": _Check("slice_gap", "slices {} mm apart", 1, math.log(1.2), True),
    "pixel_mm": _Check("pixel_spacing", "pixels of {} mm", 2, math.log(1.2), True),
    "air_hu": _Check("not_hu", "air at {} HU", 0, 25),
    "blood_hu": _Check("contrast", "heart and vessels at {} HU", 0, 10),
    "noise_hu": _Check("kernel", "noise of {} HU on the grid", 1, math.log(1.25), True),
    "lung_hu": _Check("lung_density", "aerated lung at {} HU", 0, 40),
    "lung_litres": _Check("lung_volume", "{} litres of aerated lung", 1, math.log(1.4), True),
    "end_share": _Check("lungs_cut_off", "{} of the widest slice's lung in the first or last slice", 2, 0.05),
}
CODES = ("no_lungs", "not_compared", *(check.code for check in _CHECKS.values()))


class Range(NamedTuple):
    """What a number is among the training studies.

    Attributes:
      centre: median.
      spread: standard deviation, by the median absolute deviation, but never below what scanners of one protocol and
        patients of one hospital differ by; of the logarithm for lengths, volumes and noise.
      low: 1st percentile.
      high: 99th percentile.
    """

    centre: float
    spread: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ReferenceRanges:
    """How training studies look.

    Attributes:
      num_studies: how many were measured.
      ranges: number of `ScanStatistics` -> its range; a number that could be measured in no study is left out.
    """

    num_studies: int
    ranges: dict[str, Range]

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON can hold them."""
        return {"num_studies": self.num_studies, "ranges": {n: r._asdict() for n, r in self.ranges.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ReferenceRanges":
        """Read what `to_json` gave.

        Raises:
          UserError: it is something else.
        """
        try:
            ranges = {name: Range(**{n: float(v) for n, v in kept.items()}) for name, kept in values["ranges"].items()}
            return cls(int(values["num_studies"]), ranges)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"is not how training studies look ({error!r})") from error


def typical_of(looks: Sequence[ScanStatistics]) -> ReferenceRanges:
    """Sum up how studies look.

    Args:
      looks: of the training studies, at least one.
    """
    columns = dict(zip(ScanStatistics._fields, np.asarray(looks, np.float64).T, strict=True))
    found = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return ReferenceRanges(
        len(looks), {name: _range(values, _CHECKS[name]) for name, values in found.items() if len(values)}
    )


def _range(values: np.ndarray, check: _Check) -> Range:
    scaled = np.log(values) if check.by_factor else values
    deviation = 1.4826 * float(np.median(np.abs(scaled - np.median(scaled))))
    low, high = np.percentile(values, SHARES)
    return Range(float(np.median(values)), max(deviation, check.min_spread), float(low), float(high))


def merged(several: Sequence[ReferenceRanges]) -> ReferenceRanges:
    """Sum up how the training studies of several networks look, taken together.

    Args:
      several: of each network, at least one. Those of a cross-validation share most of their studies, so the number of
        studies is that of the network that has most.
    """
    names = set.intersection(*(set(typical.ranges) for typical in several))
    return ReferenceRanges(
        max(typical.num_studies for typical in several),
        {
            name: _widest([typical.ranges[name] for typical in several])
            for name in ScanStatistics._fields
            if name in names
        },
    )


def _widest(ranges: Sequence[Range]) -> Range:
    centres, spreads, lows, highs = zip(*ranges, strict=True)
    return Range(float(np.mean(centres)), max(spreads), min(lows), max(highs))


def flags(
    look: ScanStatistics, typical: ReferenceRanges | None, lung_findings: Sequence[LungFinding] = ()
) -> list[Flag]:
    """Say in what a study does not look like the training studies.

    Args:
      look: of the study, on the network's grid.
      typical: of the training studies; None where that is not known, which is flagged itself.
      lung_findings: unusual findings about its lungs, from its preparation.

    Returns:
      Flags, one a code; none for a study like the training studies.
    """
    found = [Flag(finding.code, finding.message) for finding in lung_findings]
    if math.isnan(look.lung_litres):
        found.append(Flag("no_lungs", "no lungs found on the grid"))
    if typical is None:
        found.append(Flag("not_compared", "it is not known how the training studies look"))
    else:
        values = look._asdict()
        found += [
            _flag(_CHECKS[name], values[name], range_)
            for name, range_ in typical.ranges.items()
            if name in _CHECKS and _is_beyond(_CHECKS[name], values[name], range_)
        ]
    first: dict[str, Flag] = {}
    for flag in found:
        first.setdefault(flag.code, flag)
    return list(first.values())


def _is_beyond(check: _Check, value: float, expected: Range) -> bool:
    """Tell whether a number is far from the training studies'; one that cannot be measured is not."""
    if not check.by_factor:
        margin = SPREADS_BEYOND * expected.spread
        return value < expected.low - margin or value > expected.high + margin
    factor = math.exp(SPREADS_BEYOND * expected.spread)
    return value < expected.low / factor or value > expected.high * factor


def _flag(check: _Check, value: float, expected: Range) -> Flag:
    value_, low, high = (f"{number:.{check.digits}f}" for number in (value, expected.low, expected.high))
    return Flag(check.code, check.words.format(value_), f"training studies {low}" + f" to {high}" * (low != high))


def keep(workdir: epath.PathLike, records: Sequence[Mapping[str, Any]], rows: np.ndarray) -> None:
    """Keep in a run's workdir how its training studies look, unless that is kept; whole or not at all.

    Args:
      workdir: the run.
      records: random access to records, from several threads, with the fields "volume", "spacing_mm" and
        "source_spacing_mm".
      rows: the training studies.
    """
    path = epath.Path(workdir) / FILE
    if path.exists():
        return
    looks = on_all_cores(
        lambda record: scan_statistics(record["volume"], record["spacing_mm"], record["source_spacing_mm"]),
        records,
        rows,
    )
    storage.write_whole(path, (json.dumps(typical_of(looks).to_json(), indent=1) + "\n").encode())


def read(workdir: epath.PathLike) -> ReferenceRanges | None:
    """Read what `keep` kept; None where nothing was.

    Raises:
      UserError: the file is not as it was written.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        return None
    try:
        return ReferenceRanges.from_json(json.loads(path.read_text()))
    except ValueError as error:  # of either
        raise UserError(
            f"{path} is not as training wrote it ({error}): remove it and call python -m covidscan.train again with "
            "the same flags, which writes it"
        ) from error
