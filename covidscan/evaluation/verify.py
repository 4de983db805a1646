"""Verification of an evaluation: computed again from checkpoint and records, and compared with what was written."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from covidscan.config import DataPaths
from covidscan.distributed import devices, processes
from covidscan.evaluation import cross_validation, provenance
from covidscan.evaluation.evaluate import assess, check_options, run_baselines, score, training_dataset
from covidscan.evaluation.evaluation_set import EvaluationSet, ScoredStudies, load_evaluation_set
from covidscan.metrics import metrics_json
from covidscan.metrics.csv_cells import unescape
from covidscan.metrics.provenance import EvaluationOptions
from covidscan.metrics.results import Evaluation, OperatingPoint
from covidscan.metrics.signed_json import CHECKSUM
from covidscan.runs import operating_points
from covidscan.runs.workdir import run_id
from covidscan.trained_models import restore
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.errors import UserError

# Computed again on the same kind of device everything is equal to the last bit; on another number of devices float32
# differs by rounding.
TOLERANCE = 1e-5
OPERATING_POINT_TOLERANCE = 1e-3  # a recalibration is found by iteration


def verify(
    workdir: epath.PathLike,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: str | None = None,
    paths: DataPaths | None = None,
    prevalence: float | None = None,
    tta: str = "",
) -> None:
    """Compute a run's evaluation again, with the options that it was made with, and compare; see `evaluate.evaluate`.

    Raises:
      UserError: there is no evaluation, or it differs, or its operating point was not chosen on validation studies.
    """
    devices.enable_compilation_cache()
    network = restore.restore(workdir, checkpoint)
    evaluation_set = load_evaluation_set(network, split, checkpoint, dataset, paths)
    evaluation_set = evaluation_set._replace(prevalence=prevalence, tta=tta)
    options = _stored_options(evaluation_set)
    scored = score(network, evaluation_set, _choose_again(network, evaluation_set), recomputed=True)
    scored = scored.adapted(options.prevalence)
    if processes.is_process_0():
        found = run_baselines(evaluation_set, scored)
        _compare(evaluation_set, scored, assess(evaluation_set, scored, options, found)[0])


def verify_cross_validation(
    workdir: str, *, dataset: str | None, paths: DataPaths | None, prevalence: float | None = None, tta: str = ""
) -> None:
    """Compute a cross-validation's evaluation and those of its folds again; see
    `cross_validation.evaluate_cross_validation`.

    Raises:
      UserError: see `verify`.
    """
    devices.enable_compilation_cache()
    networks = restore.restore_folds(workdir)
    evaluation_set = cross_validation.load_external_set(networks, workdir, dataset, paths)
    if evaluation_set is not None:
        evaluation_set = evaluation_set._replace(prevalence=prevalence, tta=tta)
        options = _stored_options(evaluation_set)
        points = operating_points.with_out_of_fold(
            workdir, [_choose_again(network, evaluation_set) for network in networks], restore.checksums(networks)
        )
        scored = cross_validation.score_ensemble(networks, evaluation_set, points, recomputed=True)
        scored = scored.adapted(options.prevalence)
        if processes.is_process_0():
            found = run_baselines(evaluation_set, scored)
            _compare(evaluation_set, scored, assess(evaluation_set, scored, options, found)[0])
        return
    for network in networks:
        verify(network.workdir, paths=paths, tta=tta)
    if processes.is_process_0():
        evaluation_set, scored, found, folds = cross_validation.pool(networks, workdir, paths, tta)
        evaluation_set = evaluation_set._replace(prevalence=prevalence)
        options = _stored_options(evaluation_set)
        adapted = scored.adapted(options.prevalence)
        _compare(evaluation_set, adapted, assess(evaluation_set, adapted, options, found, folds)[0])
        frozen = operating_points.read(workdir, operating_points.OUT_OF_FOLD_STEP, tta)
        if frozen is not None:
            chosen = cross_validation.choose_out_of_fold(networks, scored.predictions, tta)
            _check_chosen(workdir, frozen, chosen, "out of fold")


def _stored_options(evaluation_set: EvaluationSet) -> EvaluationOptions:
    """Read the options of the evaluation, and check them; all processes call it."""
    stored = metrics_json.read(evaluation_set.folder, edited=True)  # the comparison names what was
    if stored is None:
        raise UserError(f"--verify: {evaluation_set.folder} does not exist: evaluate without --verify first")
    before, here = stored[1].computed_on["platform"], provenance.computed_on()["platform"]
    if before != here:
        raise UserError(
            f"--verify: {evaluation_set.folder} was computed on {before}, in another precision than here on {here}: "
            "verify on the same kind of device"
        )
    check_options(evaluation_set, stored[1].options)
    return stored[1].options


def _choose_again(network: RestoredModel, evaluation_set: EvaluationSet) -> OperatingPoint:
    """Return the frozen operating point after choosing it again on the validation studies; all processes call it.

    Raises:
      UserError: they differ: something else than the validation studies chose what is frozen.
    """
    own = training_dataset(network, evaluation_set)
    frozen = network.operating_point(lambda: own, freeze=False, tta=evaluation_set.tta)
    chosen = network.choose_operating_point(own, operating_points.Rules.of(frozen), frozen.tta)
    _check_chosen(network.workdir, frozen, chosen, "on the validation studies")
    return frozen


def _check_chosen(workdir: epath.PathLike, frozen: OperatingPoint, chosen: OperatingPoint | None, where: str) -> None:
    found = list(differences(*map(metrics_json.dump, (frozen, chosen)), tolerance=OPERATING_POINT_TOLERANCE))
    if found:
        raise UserError(
            f"--verify: {epath.Path(workdir) / operating_points.FILE}: {found[0]}: it was not chosen {where}; remove "
            "the file and evaluate again"
        )


def _compare(evaluation_set: EvaluationSet, scored: ScoredStudies, evaluation: Evaluation) -> None:
    """Compare a written evaluation with the one computed again; UserError names the first difference."""
    folder = evaluation_set.folder
    stored = json.loads((folder / metrics_json.FILE).read_text())
    del stored["context"]
    files = stored.pop(metrics_json.FILES, {})
    stored.pop(CHECKSUM, None)
    found = list(differences(stored, metrics_json.evaluation_to_json(evaluation)))
    table = folder / "predictions.csv"
    cells = _cells(table.read_bytes().decode(errors="replace") if table.exists() else "")
    found += differences(cells, _cells(scored.predictions.to_csv(scored.threshold)), "predictions.csv")
    if found:
        raise UserError(
            f"--verify: {folder} differs in {len(found)} places from what was computed now; first {found[0]}"
        )
    metrics_json.read(folder, run_id(evaluation_set.workdir))  # its provenance was not computed again
    for name in files:
        metrics_json.read_file(folder, name)
    print(f"{folder}: predictions and metrics are those of checkpoint and records")


def differences(stored: Any, computed: Any, where: str = "", tolerance: float = TOLERANCE) -> Iterator[str]:
    """Compare two trees of dicts, lists, numbers and texts, as JSON holds them.

    Args:
      stored: one tree.
      computed: the other.
      where: the name of the trees.
      tolerance: by which numbers may differ, absolutely or relatively.

    Yields:
      For each difference its path and both values.
    """
    if isinstance(stored, Mapping) and isinstance(computed, Mapping):
        for name in dict.fromkeys([*stored, *computed]):
            path = f"{where}.{name}" if where else str(name)
            yield from differences(stored.get(name), computed.get(name), path, tolerance)
    elif isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        for index, (one, other) in enumerate(zip(stored, computed, strict=True)):
            yield from differences(one, other, f"{where}[{index}]", tolerance)
    elif not _equal(stored, computed, tolerance):
        yield f"{where}: {stored} stored, {computed} computed"


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) if numbers else one == other


def _cells(text: str) -> list[list[float | str]]:
    return [[unescape(name), *map(_number, numbers)] for name, *numbers in csv.reader(io.StringIO(text))]


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return unescape(cell)
