"""Sensitivity of a network to lesions that are inserted into real scans, by their diameter and density.

This is sensitivity to insertions, not accuracy: inserted lesions are not patients' lesions, and it says nothing about
false alarms. See Abadi et al., "Virtual clinical trials in medical imaging: a review", Journal of Medical Imaging 2020.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from etils import epath
from scipy import special

from covidscan.metrics import metrics_json
from covidscan.metrics.calibration import to_log_odds
from covidscan.metrics.csv_cells import escape
from covidscan.metrics.interval_methods import LEVEL, Interval, wilson_of_share
from covidscan.metrics.signed_json import check_signed, sign
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError
from tfds_mosmed.insertion.lesion import Lesion

FOLDER = "detectability"  # of a run
FILE = "detectability.json"
RELIABLE = 0.9  # share of the lesions
INTERVAL_METHOD = "Wilson, of as many trials as scans"


@dataclass(frozen=True)
class Inserted:
    """One inserted lesion and the network's answers.

    Attributes:
      scan: as the user named it.
      place: number of the place in the scan, from 1.
      slice_mm, row_mm, column_mm: the place on the pleura, mm from the centre of the first voxel.
      kind: "ground_glass", "consolidation" or "reversed_halo".
      density_hu: of the lesion; of a reversed halo, inside its ring.
      diameter_mm: of the sphere of its volume.
      probability_without: of disease, of the scan as it is.
      probability: of the scan with the lesion.
      detected: whether `probability` reaches the threshold.
    """

    scan: str
    place: int
    slice_mm: float
    row_mm: float
    column_mm: float
    kind: str
    density_hu: float
    diameter_mm: float
    probability_without: float
    probability: float
    detected: bool

    @property
    def change(self) -> float:
        """Change in log-odds that the lesion makes."""
        before, after = to_log_odds(np.array([self.probability_without, self.probability]))
        return float(after - before)


@dataclass(frozen=True)
class ScanUsed:
    """A scan that lesions were inserted into.

    Attributes:
      name: as the user named it.
      probability: of disease, without a lesion.
      positive: whether it reaches the threshold without a lesion; then nothing can be detected in it.
      places: number of places.
      not_inserted: lesions without enough lung at their place, or hardly denser than the lung there.
      noise_hu: standard deviation of the noise.
      blur_mm: standard deviation of the point spread function in a slice.
      slice_mm: thickness of a slice, as measured.
      flags: differences from the training studies.
    """

    name: str
    probability: float
    positive: bool
    places: int
    not_inserted: int
    noise_hu: float
    blur_mm: float
    slice_mm: float
    flags: list[str]


@dataclass(frozen=True)
class Detection:
    """Lesions of one density and diameter.

    Attributes:
      kind, density_hu, diameter_mm: see `Inserted`.
      insertions: number of them, in all scans.
      change: mean change in log-odds, of the scans' means; None of no insertion.
      change_interval: Student's t over scans; None of fewer than two.
      counted: insertions into scans that are negative without a lesion.
      scans: these scans.
      share: of the counted insertions that are detected, as the mean of the scans' shares; None of no scan.
      share_interval: Wilson's, as if each scan were one trial.
    """

    kind: str
    density_hu: float
    diameter_mm: float
    insertions: int
    change: float | None
    change_interval: Interval | None
    counted: int
    scans: int
    share: float | None
    share_interval: Interval | None


@dataclass(frozen=True)
class Detectability:
    """Result of a run, as detectability.json holds it.

    Attributes:
      checkpoint: step of the network; of the first of several.
      threshold: the frozen one.
      date: ISO 8601.
      code_version: of CovidScan.
      scans: that lesions were inserted into.
      detections: a line for each kind, density and diameter.
      unusable: scans that could not be used: (name, reason).
      pictures: name -> SHA-256 of each drawing in the same folder; earlier versions did not store it.
    """

    checkpoint: int
    threshold: float
    date: str
    code_version: str
    scans: list[ScanUsed]
    detections: list[Detection]
    unusable: list[tuple[str, str]]
    pictures: dict[str, str] = field(default_factory=dict)


def summarize(insertions: Sequence[Inserted], scans: Sequence[ScanUsed], lesions: Sequence[Lesion]) -> list[Detection]:
    """Compute the mean change in log-odds and the share detected of each lesion.

    Several places in a scan are not independent. So each scan has one mean, and the intervals are those of as many
    trials as there are scans, whatever the number of places; they are never too narrow for that.

    Args:
      insertions: in all scans.
      scans: the same scans.
      lesions: that were to be inserted; those that fitted into no scan have a line too.
    """
    negative = {scan.name for scan in scans if not scan.positive}
    of_lesion: dict[tuple[float, float, str], list[Inserted]] = {
        key: [] for key in sorted((each.hu, each.diameter_mm, each.kind) for each in lesions)
    }
    for each in insertions:
        of_lesion[each.density_hu, each.diameter_mm, each.kind].append(each)
    return [_detection(*key, found, negative) for key, found in of_lesion.items()]


def _detection(
    density_hu: float, diameter_mm: float, kind: str, insertions: Sequence[Inserted], negative: set[str]
) -> Detection:
    counted = [each for each in insertions if each.scan in negative]
    changes = _means_by_scan((each.scan, each.change) for each in insertions)
    shares = _means_by_scan((each.scan, float(each.detected)) for each in counted)
    share = float(shares.mean()) if len(shares) else None
    return Detection(
        kind=kind,
        density_hu=density_hu,
        diameter_mm=diameter_mm,
        insertions=len(insertions),
        change=float(changes.mean()) if len(changes) else None,
        change_interval=_student_interval(changes),
        counted=len(counted),
        scans=len(shares),
        share=share,
        share_interval=None if share is None else wilson_of_share(share, len(shares)),
    )


def _means_by_scan(values: Iterable[tuple[str, float]]) -> np.ndarray:
    by_scan: dict[str, list[float]] = {}
    for scan, value in values:
        by_scan.setdefault(scan, []).append(value)
    return np.array([np.mean(each) for each in by_scan.values()])


def _student_interval(values: np.ndarray) -> Interval | None:
    if len(values) < 2:
        return None
    half = special.stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def smallest_reliable(detections: Sequence[Detection]) -> float | None:
    """Return the smallest diameter from which on at least `RELIABLE` of the lesions of one density are detected.

    Diameters whose share is not known do not count.
    """
    smallest = None
    for each in sorted(detections, key=lambda one: -one.diameter_mm):
        if each.share is None:
            continue
        if each.share < RELIABLE:
            break
        smallest = each.diameter_mm
    return smallest


def by_density(detections: Sequence[Detection]) -> dict[tuple[str, float], list[Detection]]:
    """Return the detections of each (kind, density), by rising diameter."""
    found: dict[tuple[str, float], list[Detection]] = {}
    for each in sorted(detections, key=lambda one: (one.density_hu, one.diameter_mm)):
        found.setdefault((each.kind, each.density_hu), []).append(each)
    return found


def to_csv(insertions: Sequence[Inserted]) -> str:
    """Return a line for each insertion, with a header."""
    text = io.StringIO()
    names = [spec.name for spec in fields(Inserted)]
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*names, "change_in_log_odds"])
    for each in insertions:
        cells = [getattr(each, name) for name in names]
        table.writerow([escape(cell) if isinstance(cell, str) else cell for cell in cells] + [round(each.change, 6)])
    return text.getvalue()


def to_json(result: Detectability, owner: str | None) -> str:
    """Return what the file holds; `owner` is the id of the run."""
    return json.dumps(sign(metrics_json.dump(result), owner), indent=2, allow_nan=False) + "\n"


def read(folder: epath.PathLike, owner: str | None) -> Detectability | None:
    """Read the result in a folder; None where there is none.

    Args:
      folder: see `covidscan.detectability`.
      owner: id of the run.

    Raises:
      UserError: it or a drawing is not as it was written, or it is of another run.
    """
    path = epath.Path(folder) / FILE
    if not path.exists():
        return None
    try:
        content = check_signed(json.loads(path.read_bytes()), "it", owner)
        result = metrics_json.load(Detectability, content)
        for name, sha256 in result.pictures.items():
            if hashlib.sha256(path.with_name(name).read_bytes()).hexdigest() != sha256:
                raise ValueError(f"{name} was changed")
        return result
    except (*NOT_AS_WRITTEN, OSError) as error:
        raise UserError(
            f"{path} is not as it was written ({error!r}): run python -m covidscan.detectability again, or remove it"
        ) from error
