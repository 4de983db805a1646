"""Comparing an evaluation that stands with one that was computed again from checkpoint and records."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from covidscan.evaluation.evaluation_set import read_table
from covidscan.runs.operating_points import OperatingPoint
from tfds_mosmed.errors import UserError

# Computed again on the same kind of device everything is equal to the last bit; on another number of devices float32
# differs by rounding.
TOLERANCE = 1e-5
CHOICES_TOLERANCE = 1e-3  # a temperature is found by iteration


def differences(stored: Any, computed: Any, where: str = "", tolerance: float = TOLERANCE) -> Iterator[str]:
    """Find what differs between two trees of dicts, lists, numbers and texts, as JSON holds them.

    Args:
      stored: one tree.
      computed: the other.
      where: what the trees are called.
      tolerance: by which numbers may differ, absolutely or relatively.

    Yields:
      For each difference the place and both values.
    """
    if isinstance(stored, Mapping) and isinstance(computed, Mapping):
        for name in dict.fromkeys([*stored, *computed]):
            yield from differences(
                stored.get(name), computed.get(name), f"{where}.{name}" if where else str(name), tolerance
            )
    elif isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        for place, (one, other) in enumerate(zip(stored, computed, strict=True)):
            yield from differences(one, other, f"{where}[{place}]", tolerance)
    elif not _equal(stored, computed, tolerance):
        yield f"{where}: {stored} stored, {computed} computed"


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) if numbers else one == other


def verify(folder: epath.Path, computed_on: Mapping[str, str], predictions_csv: str, result: Mapping[str, Any]) -> None:
    """Check that an evaluation that stands is what checkpoint and records give.

    Args:
      folder: of the evaluation.
      computed_on: the device that computed again.
      predictions_csv: the predictions as computed again.
      result: what `judge.judge` gave of them.

    Raises:
      UserError: there is no evaluation, or it differs; the first difference is named.
    """
    stored = read_table(folder)
    if stored is None:
        raise UserError(f"--verify: {folder} does not exist: evaluate without --verify first")
    before = stored.pop("context")["computed_on"]
    if before["platform"] != computed_on["platform"]:
        raise UserError(
            f"--verify: {folder} was computed on {before['platform']}, in another precision than here on "
            f"{computed_on['platform']}: verify on the same kind of device"
        )
    computed = json.loads(json.dumps(result))
    found = list(differences(stored, computed))
    found += differences(_cells(_stored_csv(folder)), _cells(predictions_csv), "predictions.csv")
    if found:
        raise UserError(
            f"--verify: {folder} differs in {len(found)} places from what was computed now; first {found[0]}"
        )


def verify_choices(path: epath.Path, frozen: OperatingPoint, chosen: OperatingPoint) -> None:
    """Check that what is frozen for a checkpoint is what its validation studies give.

    Args:
      path: of the file that holds what is frozen.
      frozen: what it holds.
      chosen: what was chosen again.

    Raises:
      UserError: they differ: something else than the validation studies chose.
    """
    found = list(differences(dataclasses.asdict(frozen), dataclasses.asdict(chosen), tolerance=CHOICES_TOLERANCE))
    if found:
        raise UserError(
            f"--verify: {path}: {found[0]}: it was not chosen on the validation studies; remove the file and evaluate "
            "again"
        )


def _stored_csv(folder: epath.Path) -> str:
    path = folder / "predictions.csv"
    return path.read_text() if path.exists() else ""


def _cells(text: str) -> list[list[float | str]]:
    return [[name, *map(_number, numbers)] for name, *numbers in csv.reader(io.StringIO(text))]


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
