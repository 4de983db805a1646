"""Cross-validation as one job: a run for each fold, evaluated on its fold, pooled; on other data sets an ensemble.

WORKDIR/cross_validation.json   the flags that made it
        fold_0 … fold_4         runs like any other
        evaluations/…-out_of_fold-best    each study by the network that never saw it
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from covidscan.config import FREE_TO_CHANGE, Config, DataPaths
from covidscan.data.dataset import load_dataset
from covidscan.distributed import devices, processes
from covidscan.distributed.preemption import StopRequests
from covidscan.evaluation import comparison
from covidscan.evaluation.baselines import BaselineResults
from covidscan.evaluation.evaluate import (
    assess,
    check_options,
    evaluate,
    record_test_access,
    run_baselines,
    write,
)
from covidscan.evaluation.evaluation_set import EvaluationSet, ScoredStudies, check_leaks, load_evaluation_set
from covidscan.metrics import metrics_json, prevalence, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import EvaluationOptions
from covidscan.metrics.results import Baseline, Evaluation, Metric, OperatingPoint, Repeats
from covidscan.runs import operating_points
from covidscan.runs.checkpoints import parameters_checksum
from covidscan.runs.owner import owned
from covidscan.runs.workdir import (
    CROSS_VALIDATION,
    OUT_OF_FOLD,
    evaluation_folder,
    fold_workdir,
    has_checkpoints,
    is_cross_validation,
    read_cross_validation,
    run_id,
    write_text,
)
from covidscan.trained_models import restore
from covidscan.trained_models.restore import RestoredModel
from covidscan.training.experiment import resolve_dtype
from covidscan.training.initialise import Source
from covidscan.training.initialise import check_leaks as check_start
from covidscan.training.loop import train_and_evaluate
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError


def cross_validate(
    config: Config,
    paths: DataPaths,
    workdir: str,
    stop: StopRequests,
    tracker: str | None = None,
    read_source: Callable[[str], Source] | None = None,
) -> None:
    """Train and evaluate a run for each fold, and pool their predictions; resumes where it was stopped.

    All processes of a job call it.

    Args:
      config: of every run, except for the fold.
      paths: where the data are.
      workdir: of the cross-validation.
      stop: what may ask it to stop.
      tracker: to which the metrics of each fold are sent too, see `open_tracker`.
      read_source: reads the network that --init_from names.

    Raises:
      UserError: something that the user can mend is in the way.
      RunAgain: it was asked to stop, and has saved.
    """
    there = read_cross_validation(workdir) if is_cross_validation(workdir) else None
    processes.wait_for_all("the flags of the folds")  # before process 0 writes them
    config = resolve_dtype(config, there)
    _open(config, workdir)
    with processes.entered_by_process_0(owned(workdir)):
        _check_folds(config, paths, workdir, read_source)
        for fold in range(config.num_folds):
            _check_stop(stop, f"fold {fold}")
            member = fold_workdir(workdir, fold)
            if processes.is_process_0():
                print(f"\nFold {fold} (run {fold + 1} of {config.num_folds}): {member}")
            train_and_evaluate(dataclasses.replace(config, fold=fold), paths, str(member), stop, tracker, read_source)
            _check_stop(stop, f"the evaluation of fold {fold}")
            if not processes.broadcast_from_process_0(_is_evaluated(member, config)):
                evaluate(member, paths=paths)
        networks = restore.restore_folds(workdir)
        pooled = _write_pooled(networks, workdir, paths, EvaluationOptions())
        if pooled is not None and (chosen := choose_out_of_fold(networks, pooled)):
            operating_points.freeze(workdir, chosen, restore.checksums(networks))


def _check_folds(config: Config, paths: DataPaths, workdir: str, read_source: Callable[[str], Source] | None) -> None:
    """Check the parts of the folds that are to be trained, before hours are spent on the first.

    Raises:
      UserError: a part lacks a label, the network that --init_from names was developed on a fold's test studies or
        trained on its validation studies, or a table gives one split in place of folds, which is seen at the last one.
    """
    folds = processes.broadcast_from_process_0(
        [fold for fold in range(config.num_folds) if not has_checkpoints(fold_workdir(workdir, fold))]
    )
    source = read_source(config.init_from) if folds and config.init_from and read_source else None
    for fold in reversed(folds):
        own = dataclasses.replace(config, fold=fold)
        dataset = load_dataset(own, paths)
        try:
            dataset.check_labels(own)
            if source is not None:
                check_start(source, dataset)
        except UserError as error:
            raise UserError(f"--fold={fold}: {error}") from error


def _check_stop(stop: StopRequests, following: str) -> None:
    if stop.reached():
        raise stop.exception(f"stopped before {following}, all saved")


def _evaluation_folder(member: epath.Path, config: Config, tta: str = "") -> epath.Path:
    return evaluation_folder(member, config.dataset, "test", "best", tta=tta)


def _is_evaluated(member: epath.Path, config: Config) -> bool:
    """Return whether a fold was evaluated at its best checkpoint, and not at one before."""
    stored = metrics_json.read(_evaluation_folder(member, config), run_id(member))
    return stored is not None and not comparison.is_outdated(stored[1], member)


def _open(config: Config, workdir: str) -> None:
    """Make the folder, or check that it was made with the same flags."""
    storage.check(workdir)
    folder = epath.Path(workdir)
    if (folder / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds a single run: use another one for --fold=all")
    if not processes.is_process_0():
        return
    if is_cross_validation(workdir):
        there = read_cross_validation(folder).to_json()
        differing = [
            f"--{name}={there[name]} there"
            for name, value in config.to_json().items()
            if there[name] != value and name not in FREE_TO_CHANGE
        ]
        if differing:
            raise UserError(
                f"{folder / CROSS_VALIDATION} was made with other flags ({'; '.join(differing)}): use the same flags "
                "or another --workdir"
            )
        return
    storage.make_folder(folder)
    write_text(folder / CROSS_VALIDATION, json.dumps({"config": config.to_json()}, indent=2) + "\n")


def evaluate_cross_validation(
    workdir: str, *, dataset: str | None, paths: DataPaths | None, options: EvaluationOptions
) -> None:
    """Evaluate a cross-validation: on its own studies by pooling, on another data set as an ensemble.

    All processes of a job call it; process 0 writes the evaluation.

    Args:
      workdir: of the cross-validation.
      dataset: another data set, NAME/CONFIG, or None.
      paths: where the data are; None: where they were when the runs were trained.
      options: optional parts of the evaluation.

    Raises:
      UserError: something that the user can mend is in the way, such as a fold that is not evaluated yet.
    """
    devices.enable_compilation_cache()
    networks = restore.restore_folds(workdir)
    evaluation_set = load_external_set(networks, workdir, dataset, paths)
    if evaluation_set is None:
        pooled = _write_pooled(networks, workdir, paths, options)
        if pooled is not None and options.tta and (chosen := choose_out_of_fold(networks, pooled, options.tta)):
            # That without views was frozen after the training.
            operating_points.freeze(workdir, chosen, restore.checksums(networks))
        return
    evaluation_set = evaluation_set._replace(prevalence=options.prevalence, tta=options.tta)
    options = check_options(evaluation_set, options)
    points = operating_points.with_out_of_fold(
        workdir,
        [network.operating_point(network.own_dataset, tta=options.tta) for network in networks],
        restore.checksums(networks),
    )
    known = operating_points.mean_prevalence(points)
    prevalence.check(networks[0].experiment.config.task, known, options.prevalence, workdir)
    scored = score_ensemble(networks, evaluation_set, points).adapted(options.prevalence)
    if processes.is_process_0():
        found = run_baselines(evaluation_set, scored)
        write(evaluation_set, scored, *assess(evaluation_set, scored, options, found))


def _write_pooled(
    networks: Sequence[RestoredModel], workdir: epath.PathLike, paths: DataPaths | None, options: EvaluationOptions
) -> Predictions | None:
    """Write the evaluation of the pooled predictions, and return these; None on processes other than 0."""
    if not processes.is_process_0():
        return None
    evaluation_set, scored, found, folds = pool(networks, workdir, paths, options.tta)
    evaluation_set = evaluation_set._replace(prevalence=options.prevalence)
    options = check_options(evaluation_set, options)
    adapted = scored.adapted(options.prevalence)
    write(evaluation_set, adapted, *assess(evaluation_set, adapted, options, found, folds))
    return scored.predictions


def pool(
    networks: Sequence[RestoredModel], workdir: epath.PathLike, paths: DataPaths | None, tta: str = ""
) -> tuple[EvaluationSet, ScoredStudies, BaselineResults, Repeats]:
    """Pool the evaluations of all folds: each study is predicted by the network that neither trained nor chose on it.

    Args:
      networks: of the folds.
      workdir: of the cross-validation.
      paths: where the data are; None: where they were when the runs were trained.
      tta: set of views over which the folds' predictions are averaged; "": none.

    Returns:
      All studies, their predictions, the mean of the folds' baselines, and the spread of metrics over the folds.

    Raises:
      UserError: a fold is not evaluated yet.
    """
    evaluations, provenances, predictions = [], [], []
    for network in networks:
        folder = _evaluation_folder(network.workdir, network.experiment.config, tta)
        stored = comparison.read_evaluation(folder, run_id(network.workdir))
        if stored is None or stored.provenance.checkpoint != network.step:
            views = f" --tta={tta}" if tta else ""
            state = "does not exist" if stored is None else f"is not of step {network.step}, the best checkpoint now"
            raise UserError(f"{folder} {state}: first python -m covidscan.evaluate --workdir={network.workdir}{views}")
        evaluations.append(stored.evaluation)
        provenances.append(stored.provenance)
        predictions.append(stored.predictions)
    dataset, pooled = networks[0].own_dataset(paths), Predictions.pool(predictions)
    row_of = {study_id: row for row, study_id in enumerate(dataset.study_ids)}
    rows = np.asarray([row_of[study_id] for study_id in pooled.study_id])
    whole = dataset._replace(parts={OUT_OF_FOLD: rows})
    leak_check = f"Looked for in each of {len(networks)} folds; the first: {provenances[0].leak_check}"
    evaluation_set = EvaluationSet(epath.Path(workdir), whole, OUT_OF_FOLD, False, "best", leak_check, paths, tta=tta)
    point = _pooled_operating_point(pooled.task, [evaluation.operating_point for evaluation in evaluations])
    seconds = sum(one.seconds["inference"] for one in provenances)
    scored = ScoredStudies(pooled, _own_thresholds(evaluations, predictions), point, networks, seconds)
    shortcuts = [f"Fold {fold}: {text}" for fold, one in enumerate(evaluations) for text in one.shortcuts]
    by_fold = {f"fold {fold}": evaluation.metrics for fold, evaluation in enumerate(evaluations)}
    baselines = BaselineResults(_mean_baselines(evaluations), shortcuts, [])
    return evaluation_set, scored, baselines, comparison.summarize_runs(by_fold, "folds")


def choose_out_of_fold(networks: Sequence[RestoredModel], pooled: Predictions, tta: str = "") -> OperatingPoint | None:
    """Choose the threshold of the folds' ensemble on their pooled predictions; see `operating_points`."""
    points = [
        operating_points.read(network.workdir, network.step, tta, parameters_checksum(network.variables))
        for network in networks
    ]
    known = [point for point in points if point is not None]
    if len(known) < len(points):
        return None
    return operating_points.choose_for_ensemble(networks[0].experiment.config, pooled, known)


def _own_thresholds(evaluations: Sequence[Evaluation], predictions: Sequence[Predictions]) -> np.ndarray | None:
    """Return the threshold of each study's fold, (study,)."""
    if evaluations[0].threshold is None and not evaluations[0].operating_point.grade_thresholds:
        return None
    found = []
    questions = max(len(one.operating_point.grade_thresholds) for one in evaluations)
    for one, part in zip(evaluations, predictions, strict=True):
        own = one.operating_point.grade_thresholds or [one.threshold] * max(questions, 1)
        found.append(np.tile(np.asarray(own, np.float64), (len(part.study_id), 1)))
    return np.concatenate(found) if questions else np.concatenate(found)[:, 0]


def _pooled_operating_point(task: str, points: Sequence[OperatingPoint]) -> OperatingPoint:
    """Describe the folds' operating points as one, without a threshold."""
    counts = [point.num_studies for point in points]
    if task == "regression":  # whose points choose nothing
        return dataclasses.replace(points[0], num_studies=sum(counts), num_in_smallest_fold=min(counts))
    temperatures = ", ".join(f"{point.temperature:.2f}" for point in points)
    chosen = ", ".join(_describe_thresholds(point) for point in points)
    return dataclasses.replace(
        points[0],
        description=f"{_join_folds([point.description for point in points])} Each fold has its own threshold "
        f"({chosen}) and temperature ({temperatures}).",
        threshold=None,
        grade_thresholds=[],
        prevalence=operating_points.mean_prevalence(points),
        temperature=float(np.mean([point.temperature for point in points])),
        offsets=_mean_offsets(points),
        num_studies=sum(counts),
        num_in_smallest_fold=min(counts),
    )


def _describe_thresholds(point: OperatingPoint) -> str:
    found = point.grade_thresholds or [point.threshold]
    return " / ".join("none" if each is None else f"{each:.2f}" for each in found)


def _mean_offsets(points: Sequence[OperatingPoint]) -> list[float]:
    """Average the offsets of networks; those of older versions have none."""
    known = [point.offsets for point in points if point.offsets]
    return (np.sum(known, axis=0) / len(points)).tolist() if known else []


def _join_folds(texts: Sequence[str]) -> str:
    """Join a text of each fold; one where all are the same."""
    if len(set(texts)) == 1:
        return texts[0]
    return " ".join(f"Fold {fold}: {text}" for fold, text in enumerate(texts))


def _of_all_folds(evaluations: Sequence[Evaluation]) -> list[list[Baseline]]:
    """Return the baselines that all folds have: for each those of the folds. "Always LABEL" varies after "Always"."""
    of_folds = [
        {each.name.split()[0] if each.kind == "constant" else each.name: each for each in one.baselines}
        for one in evaluations
    ]
    return [[fold[key] for fold in of_folds] for key in of_folds[0] if all(key in fold for fold in of_folds)]


def _mean_baselines(evaluations: Sequence[Evaluation]) -> list[Baseline]:
    """Average the metrics over the folds of each baseline that all folds have."""
    found = []
    for several in _of_all_folds(evaluations):
        metrics = {}
        for name in several[0].metrics:  # folds with few training studies of a label have the AUROC alone
            values = [baseline.metrics[name].value for baseline in several if name in baseline.metrics]
            defined = [value for value in values if value is not None]
            metrics[name] = Metric(float(np.mean(defined)) if defined else None)
        explanation = f"{_join_folds([baseline.explanation for baseline in several])} Mean over the folds."
        names = {baseline.name for baseline in several}
        name = several[0].name if len(names) == 1 else "Always the fold's commonest label"
        found.append(dataclasses.replace(several[0], name=name, explanation=explanation, metrics=metrics))
    return found


def load_external_set(
    networks: Sequence[RestoredModel], workdir: epath.PathLike, dataset: str | None, paths: DataPaths | None
) -> EvaluationSet | None:
    """Load another data set than the one that was trained on; None where it is the same.

    Raises:
      UserError: it does not fit the run, or studies of it trained or chose one of the networks.
    """
    if dataset is None:
        return None
    evaluation_set = load_evaluation_set(networks[0], "test", "best", dataset, paths, workdir)
    if not evaluation_set.external:
        return None
    return evaluation_set._replace(leak_check=check_leaks(networks, evaluation_set.dataset))


def score_ensemble(
    networks: Sequence[RestoredModel],
    evaluation_set: EvaluationSet,
    points: Sequence[OperatingPoint],
    *,
    recomputed: bool = False,
) -> ScoredStudies:
    """Predict each study by the mean probability of all networks; all processes call it.

    Args:
      networks: of the folds.
      evaluation_set: the studies.
      points: the operating point of each network.
      recomputed: whether a known evaluation is computed again.
    """
    record_test_access(networks, evaluation_set, points, recomputed=recomputed)
    start = time.perf_counter()
    members = [
        network.predict(evaluation_set.dataset, evaluation_set.rows, point.tta).calibrated(point)
        for network, point in zip(networks, points, strict=True)
    ]
    predictions = dataclasses.replace(
        members[0],
        probability=np.mean([one.probability for one in members], axis=0),
        uncalibrated=np.mean([one.uncalibrated for one in members], axis=0),
    )
    pooled = _pooled_operating_point(predictions.task, points)
    of_each = (
        "prediction is the mean" if predictions.task == "regression" else "probability and threshold are the means"
    )
    point = dataclasses.replace(
        pooled,
        threshold=operating_points.mean_threshold(points),
        grade_thresholds=operating_points.mean_grade_thresholds(points),
        description=f"{pooled.description} The ensemble's {of_each} of theirs.",
    )
    threshold = thresholds.frozen(point.threshold, point.grade_thresholds)
    return ScoredStudies(predictions, threshold, point, networks, time.perf_counter() - start)
