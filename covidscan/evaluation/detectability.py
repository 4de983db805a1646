"""Sensitivity to inserted lesions: paint lesions into scans, prepare each painted scan as any scan, and predict it."""

import dataclasses
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.data import domain_shift
from covidscan.data.domain_shift import ReferenceRanges
from covidscan.evaluation.provenance import now
from covidscan.metrics import thresholds
from covidscan.metrics.detectability import FILE, Detectability, Inserted, ScanUsed, summarize, to_csv, to_json
from covidscan.prediction.predictor import NOT_FINITE
from covidscan.prediction.reading import Reading, Refusal, read_prepared, time_limit
from covidscan.report import plots
from covidscan.report.detectability import Example, draw_examples, plot
from covidscan.runs.workdir import run_id
from covidscan.trained_models.ensemble import Ensemble
from covidscan.version import code_version
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.insertion.image_quality import ImageQuality, measure_image_quality
from tfds_mosmed.insertion.lesion import Insertion, Lesion, insert_lesion, lung_surroundings
from tfds_mosmed.insertion.places import Place, choose_places
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lung_region import Box
from tfds_mosmed.preprocessing.lungs import segment_lungs
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.find import Found
from tfds_mosmed.scans.scan import Scan
from tfds_mosmed.workers import Failure, isolated_map

SECONDS_PER_INSERTION = 10.0  # limit for painting and preparing, on a slow or busy machine
BATCH = 8
EXAMPLE_MM = 90.0  # width of a picture
SEED = 0


class Painted(NamedTuple):
    """A prepared scan with a lesion.

    Attributes:
      place: index of the lesion's place.
      lesion: the lesion.
      box: part of the grid that differs from the scan without it.
      volume: int16 HU, that part.
    """

    place: int
    lesion: Lesion
    box: Box
    volume: np.ndarray


class PaintedScan(NamedTuple):
    """A prepared scan, and all its copies with a lesion.

    Attributes:
      reading: the scan without a lesion.
      quality: noise and resolution of the scan.
      places: where lesions were inserted.
      painted: the copies.
      not_inserted: lesions that did not fit at their place.
      examples: pictures of the lesions at the first place, and of the scan without them.
    """

    reading: Reading
    quality: ImageQuality
    places: list[Place]
    painted: list[Painted]
    not_inserted: int
    examples: list[Example]


class ScoredScan(NamedTuple):
    """A scan, the network's answers to each inserted lesion, and pictures of them."""

    scan: ScanUsed
    insertions: list[Inserted]
    examples: list[Example]


def measure_detectability(
    network: Ensemble, studies: Sequence[Found], lesions: Sequence[Lesion], num_places: int, workers: int
) -> Iterator[ScoredScan | Refusal]:
    """Insert lesions into scans, one at a time, and predict each; yields the outcome of each scan.

    Args:
      network: with a threshold.
      studies: the scans.
      lesions: of which each is inserted at each place of a scan, with another shape at each place.
      num_places: in each scan.
      workers: processes that paint and prepare.
    """
    grid, compiled = Grid.parse(network.info.grid), network.compiled()
    paint = functools.partial(paint_scan, grid=grid, lesions=lesions, num_places=num_places)

    def seconds(found: Found) -> float:
        return time_limit(found) + SECONDS_PER_INSERTION * len(lesions) * num_places

    with isolated_map(paint, studies, seconds, min(workers, len(studies)), in_flight=1) as outcomes:
        for found, outcome in zip(studies, outcomes, strict=True):
            if isinstance(outcome, Failure):
                yield Refusal(found.name, f"{found.name}: {outcome.reason}", True, outcome.seconds)
            elif isinstance(outcome, Refusal):
                yield outcome
            else:
                yield _score(network, compiled, outcome)


def write_detectability(
    folder: epath.PathLike, network: Ensemble, outcomes: Sequence[ScoredScan | Refusal], lesions: Sequence[Lesion]
) -> Detectability:
    """Write insertions.csv, detectability and examples as PNG and SVG and, last, detectability.json.

    Args:
      folder: made where it does not exist; files of an earlier measurement are replaced.
      network: that predicted.
      outcomes: of the scans, at least one of which got a lesion.
      lesions: that were to be inserted.

    Raises:
      OSError: a file cannot be written.
    """
    used = [each for each in outcomes if isinstance(each, ScoredScan)]
    insertions = [one for each in used for one in each.insertions]
    scans = [each.scan for each in used]
    assert network.info.threshold is not None
    result = Detectability(
        checkpoint=network.members[0].step,
        threshold=network.info.threshold,
        date=now(),
        code_version=code_version(),
        scans=scans,
        detections=summarize(insertions, scans, lesions),
        unusable=[(each.name, each.reason) for each in outcomes if isinstance(each, Refusal)],
    )
    figures = {"detectability": plot(result.detections)}
    examples = next((each.examples for each in used if each.examples), None)
    if examples:
        figures["examples"] = draw_examples(examples)
    pictures = {f"{name}.png": plots.to_png(figure) for name, figure in figures.items()}
    pictures |= {f"{name}.svg": plots.to_svg(figure) for name, figure in figures.items()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in pictures.items()}
    result = dataclasses.replace(result, pictures=hashes)
    table = to_csv(insertions).encode(errors="surrogateescape")
    owner = run_id(network.members[0].workdir)
    files = {"insertions.csv": table, **pictures, FILE: to_json(result, owner).encode()}
    for name, content in files.items():
        storage.write_whole(epath.Path(folder) / name, content)
    return result


def paint_scan(found: Found, grid: Grid, lesions: Sequence[Lesion], num_places: int) -> PaintedScan | Refusal:
    """Read a scan, and prepare it without and with each lesion at each place; runs in a worker process."""
    started = time.perf_counter()
    reading = read_prepared(found, grid, with_scan=True)
    if isinstance(reading, Refusal):
        return reading
    scan = reading.scan
    assert scan is not None
    chest = segment_lungs(scan.hu, scan.spacing_mm)
    places = choose_places(chest, scan.spacing_mm, num_places, np.random.default_rng(SEED))
    if not places:
        reason = "has no lungs" if chest.mask is None else "has no place of clear lung at the chest wall"
        reason = f"{found.name}: {reason}, so no lesion can be inserted; give a chest CT of clear lungs"
        return Refusal(found.name, reason, True, time.perf_counter() - started)
    inside = np.flatnonzero(chest.mask.any(axis=(1, 2))) * len(scan.hu) // len(chest.mask)  # type: ignore[union-attr]
    quality = measure_image_quality(scan.hu[inside[0] : inside[-1] + 1], scan.spacing_mm)
    surroundings, painted, examples = lung_surroundings(chest), [], []
    for (number, place), lesion in itertools.product(enumerate(places), lesions):
        lesion = lesion._replace(seed=SEED + 10 * number)
        inserted = insert_lesion(scan.hu, scan.spacing_mm, surroundings, quality, place, lesion)
        if inserted is None:
            continue
        painted.append(Painted(number, lesion, *_prepare_with(inserted, reading, scan, grid)))
        if number == 0:
            examples.append(_example(scan, place, lesion, inserted))
    not_inserted = len(places) * len(lesions) - len(painted)
    return PaintedScan(reading._replace(scan=None), quality, places, painted, not_inserted, examples)


def _prepare_with(inserted: Insertion, reading: Reading, scan: Scan, grid: Grid) -> tuple[Box, np.ndarray]:
    """Prepare a scan with a lesion; returns the part of the grid that differs, and its voxels."""
    hu = scan.hu.copy()
    hu[inserted.box] = inserted.hu
    volume = prepare(dataclasses.replace(scan, hu=hu), grid).volume
    differs = volume != reading.prepared.volume
    ends = [np.flatnonzero(differs.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(each[0]), int(each[-1]) + 1) if len(each) else slice(0, 0) for each in ends)
    return box, volume[box].copy()  # type: ignore[return-value]


def _example(scan: Scan, place: Place, lesion: Lesion, inserted: Insertion) -> Example:
    """Cut the slice that shows a lesion best, with and without it."""
    areas = inserted.cover.sum(axis=(1, 2))
    number = inserted.box[0].start + int(areas.argmax())
    centre = [round(at / step) for at, step in zip(place.surface_mm[1:], scan.spacing_mm[1:], strict=True)]
    half = [round(EXAMPLE_MM / 2 / step) for step in scan.spacing_mm[1:]]
    window = tuple(slice(max(0, at - reach), at + reach) for at, reach in zip(centre, half, strict=True))
    painted = scan.hu[number].copy()
    painted[inserted.box[1:]] = inserted.hu[areas.argmax()]
    return Example(
        lesion.kind, lesion.hu, lesion.diameter_mm, scan.hu[number][window].copy(), painted[window], scan.spacing_mm[1:]
    )


def _score(network: Ensemble, compiled: Callable[[np.ndarray], Any], painted: PaintedScan) -> ScoredScan:
    """Predict a scan and its painted copies."""
    reading, info = painted.reading, network.info
    plain = reading.prepared.volume

    def copies() -> Iterator[np.ndarray]:
        yield plain
        for each in painted.painted:
            copy = plain.copy()
            copy[each.box] = each.volume
            yield copy

    probability = _predict(compiled, copies(), len(painted.painted) + 1)
    disease = thresholds.dichotomies(info.task, np.zeros(len(probability)), probability)[0][1]
    positive = thresholds.decide(info.task, probability, info.threshold) > 0
    typical = None if info.typical is None else ReferenceRanges.from_json(info.typical)
    flags = domain_shift.flags(reading.statistics, typical, reading.prepared.lung_findings)
    scan = ScanUsed(
        name=reading.name,
        probability=float(disease[0]),
        positive=bool(positive[0]),
        places=len(painted.places),
        not_inserted=painted.not_inserted,
        flags=list(map(str, flags)),
        **painted.quality._asdict(),
    )
    insertions = []
    for number, each in enumerate(painted.painted, 1):
        at = [round(mm, 1) for mm in painted.places[each.place].surface_mm]
        insertions.append(
            Inserted(
                scan=reading.name,
                place=each.place + 1,
                slice_mm=at[0],
                row_mm=at[1],
                column_mm=at[2],
                kind=each.lesion.kind,
                density_hu=each.lesion.hu,
                diameter_mm=each.lesion.diameter_mm,
                probability_without=float(disease[0]),
                probability=float(disease[number]),
                detected=bool(positive[number]),
            )
        )
    return ScoredScan(scan, insertions, painted.examples)


def _predict(compiled: Callable[[np.ndarray], Any], volumes: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Return probabilities, (volume, label), float64; batches of one size, so that the network is compiled once."""
    found = []
    for _ in range(0, count, BATCH):
        batch = list(itertools.islice(volumes, BATCH))
        batch += batch[:1] * (BATCH - len(batch))
        found.append(np.asarray(compiled(np.stack(batch)), np.float64))
    probability = np.concatenate(found)[:count]
    if not np.isfinite(probability).all():
        raise UserError(NOT_FINITE)
    return probability
