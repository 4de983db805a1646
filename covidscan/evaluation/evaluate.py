"""Evaluation of a trained network: load studies, apply the frozen operating point, predict each once, report."""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from covidscan.config import WITH_FOLDS, DataPaths
from covidscan.data.dataset import Dataset
from covidscan.distributed import devices, processes
from covidscan.evaluation import comparison, failures, multilabel, provenance, regression, subgroups, summary
from covidscan.evaluation.baselines import BaselineResults, evaluate_baselines
from covidscan.evaluation.evaluation_set import (
    EvaluationSet,
    ScoredStudies,
    load_evaluation_set,
    training_dataset_if_built,
)
from covidscan.explanation import scale
from covidscan.metrics import detectability, metrics_json, prevalence, thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import EvaluationOptions, Provenance, TestAccess
from covidscan.metrics.results import Evaluation, OperatingPoint, Repeats
from covidscan.report import console
from covidscan.report import write as report
from covidscan.report.montage import ShownStudy
from covidscan.runs import test_log
from covidscan.runs.checkpoints import parameters_checksum
from covidscan.runs.log import read_log
from covidscan.runs.workdir import run_id
from covidscan.trained_models import restore
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import announce

_TOO_NARROW = "where those of a patient are alike, they are too narrow, and p-values too small."


def evaluate(
    workdir: epath.PathLike,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: str | None = None,
    paths: DataPaths | None = None,
    options: EvaluationOptions = EvaluationOptions(),  # noqa: B008 - it cannot change
) -> epath.Path:
    """Evaluate a run on a split of its own data set, or on all of another one as an external test.

    All processes of a job predict; process 0 writes the evaluation.

    Args:
      workdir: the run; nothing else is needed.
      split: "train", "validation" or "test".
      checkpoint: "best" by validation AUROC, "latest" or a step.
      dataset: another data set, NAME/CONFIG, on the same grid; it is evaluated whole, and `split` is ignored.
      paths: where the data are; None: where they were when the run was trained.
      options: optional parts of the evaluation.

    Returns:
      The folder of the evaluation.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    devices.enable_compilation_cache()
    network = restore.restore(workdir, checkpoint)
    evaluation_set = load_evaluation_set(network, split, checkpoint, dataset, paths)
    evaluation_set = evaluation_set._replace(prevalence=options.prevalence, tta=options.tta)
    options = check_options(evaluation_set, options)
    point = network.operating_point(lambda: training_dataset(network, evaluation_set), tta=options.tta)
    prevalence.check(network.experiment.config.task, point.prevalence, options.prevalence, str(workdir))
    has_maps = thresholds.is_explained(network.experiment.config.task) and not options.tta  # they are of one view
    if evaluation_set.part == "test" and not evaluation_set.external and has_maps:
        scale.freeze(network, point, evaluation_set.dataset)
    scored = score(network, evaluation_set, point).adapted(options.prevalence)
    if processes.is_process_0():
        found = run_baselines(evaluation_set, scored)
        write(evaluation_set, scored, *assess(evaluation_set, scored, options, found))
    return evaluation_set.folder


def check_options(evaluation_set: EvaluationSet, options: EvaluationOptions) -> EvaluationOptions:
    """Read the files and runs that the options name, before test studies are predicted; all processes call it.

    Returns:
      The options, with those of the evaluation that will be replaced where they are not given, so that its subgroups,
      comparison and repeats are not lost.

    Raises:
      UserError: a file or run is not there, or does not fit.
    """
    kept = _kept_options(evaluation_set, options)
    try:
        _read_options(evaluation_set, kept)
    except UserError as error:
        if kept == options:
            raise
        raise UserError(
            f"{error}; the evaluation in {evaluation_set.folder} used it: give it anew, or move that folder away"
        ) from error
    return kept


def _kept_options(evaluation_set: EvaluationSet, options: EvaluationOptions) -> EvaluationOptions:
    try:
        stored = metrics_json.read(evaluation_set.folder, run_id(evaluation_set.workdir))
    except UserError as error:
        logging.warning("%s; what it was made with is not known", error)
        return options
    before = stored[1].options if stored else EvaluationOptions()
    return EvaluationOptions(
        metadata=options.metadata or before.metadata,
        compare=options.compare or before.compare,
        repeats=options.repeats or before.repeats,
        prevalence=options.prevalence,
        tta=options.tta,
    )


def _read_options(evaluation_set: EvaluationSet, options: EvaluationOptions) -> None:
    if options.metadata:
        subgroups.read_metadata(options.metadata, evaluation_set.study_ids)
    if options.compare:
        comparison.check_is_another(options.compare, evaluation_set)
        comparison.read_other("compare", options.compare, evaluation_set)
    for other in options.repeats:
        comparison.read_other("repeats", other, evaluation_set)


def training_dataset(network: RestoredModel, evaluation_set: EvaluationSet) -> Dataset:
    """Return the data set that trained a network, loaded where the evaluation set is another one."""
    return network.own_dataset() if evaluation_set.external else evaluation_set.dataset


def score(
    network: RestoredModel, evaluation_set: EvaluationSet, point: OperatingPoint, *, recomputed: bool = False
) -> ScoredStudies:
    """Predict each study once; all processes call it. An access to test studies is logged first.

    Args:
      network: the network.
      evaluation_set: the studies.
      point: its operating point.
      recomputed: whether a known evaluation is computed again.
    """
    record_test_access([network], evaluation_set, [point], recomputed=recomputed)
    start = time.perf_counter()
    predictions = network.predict(evaluation_set.dataset, evaluation_set.rows, point.tta).calibrated(point)
    threshold = thresholds.frozen(point.threshold, point.grade_thresholds)
    return ScoredStudies(predictions, threshold, point, [network], time.perf_counter() - start)


def record_test_access(
    networks: Sequence[RestoredModel],
    evaluation_set: EvaluationSet,
    points: Sequence[OperatingPoint],
    *,
    recomputed: bool = False,
) -> None:
    """Log that test studies are about to be predicted, if they are, in the workdir and those of all networks.

    Process 0 does.

    Args:
      networks: that predict.
      evaluation_set: the studies.
      points: the operating point of each; none where no decision is made.
      recomputed: whether a known evaluation is computed again.
    """
    if processes.is_process_0() and evaluation_set.part == "test":
        network = networks[0]
        choices = [
            f"threshold {point.threshold}, temperature {point.temperature}"
            + (f", views {point.tta}" if point.tta else "")
            + (f", offsets {point.offsets}" if point.offsets else "")
            + (f", of grades {point.grade_thresholds}" if point.grade_thresholds else "")
            for point in points
        ]
        config = network.experiment.config
        name = epath.Path(sys.argv[0]).stem
        is_command = (epath.Path(__file__).parents[1] / f"{name}.py").exists()
        # In whatever order they are named, they are the same ensemble.
        checksums = [parameters_checksum(each.variables) for each in networks]
        if choices:
            checksums, choices = zip(*sorted(zip(checksums, choices, strict=True)), strict=True)
        access = TestAccess(
            date=provenance.now(),
            dataset=evaluation_set.dataset.name,
            checkpoint=network.step,
            command=shlex.join(["python", "-m", f"covidscan.{name}", *sys.argv[1:]] if is_command else sys.orig_argv),
            verify=recomputed,
            fold=config.fold if config.protocol in WITH_FOLDS and not evaluation_set.external else None,
            network="+".join(sorted(checksums)),
            choices="; ".join(choices) or None,
        )
        for workdir in dict.fromkeys([evaluation_set.workdir, *(each.workdir for each in networks)]):
            try:
                test_log.record(workdir, access)
            except OSError as error:
                if workdir == evaluation_set.workdir and not recomputed:
                    raise
                kind = "verification" if recomputed else "evaluation"
                logging.warning("%s: this %s is not logged (%s)", workdir, kind, error.strerror)


def run_baselines(evaluation_set: EvaluationSet, scored: ScoredStudies) -> BaselineResults:
    """Evaluate the baselines, where the training studies are at hand."""
    own = training_dataset_if_built(scored.members[0]) if evaluation_set.external else evaluation_set.dataset
    return evaluate_baselines(evaluation_set, scored, own)


def assess(
    evaluation_set: EvaluationSet,
    scored: ScoredStudies,
    options: EvaluationOptions,
    found: BaselineResults,
    folds: Repeats | None = None,
) -> tuple[Evaluation, Provenance]:
    """Evaluate predictions in memory.

    Args:
      evaluation_set: the studies.
      scored: their predictions.
      options: optional parts of the evaluation.
      found: the baselines.
      folds: the spread over the folds of a cross-validation.

    Raises:
      UserError: a run that the options name does not fit.
    """
    announce("Computing metrics with their intervals, and subgroups")
    if scored.predictions.task == "regression":
        constant = float(np.mean([member.experiment.scaling.mean for member in scored.members]))
        evaluation = regression.summarize(scored.predictions, scored.operating_point, constant)
    elif scored.predictions.task == "multilabel":
        evaluation = multilabel.summarize(scored.predictions, scored.threshold, scored.operating_point)
    else:
        evaluation = summary.summarize(scored.predictions, scored.threshold, scored.operating_point)
    repeats = folds
    if options.repeats:
        repeats = comparison.summarize_repeats(evaluation_set, scored, evaluation.metrics, options.repeats)
    evaluation = dataclasses.replace(
        evaluation,
        notes=[*evaluation.notes, *found.notes, *_repeated_patients(scored.predictions)],
        baselines=found.baselines,
        shortcuts=found.shortcuts,
        subgroups=subgroups.evaluate_subgroups(
            scored.predictions, scored.threshold, subgroups.columns(evaluation_set, options.metadata)
        ),
        comparison=comparison.compare_with(evaluation_set, scored, options.compare) if options.compare else None,
        repeats=repeats,
    )
    return evaluation, provenance.describe(evaluation_set, scored, options)


def _repeated_patients(predictions: Predictions) -> list[str]:
    """Return a note where patients have several of the evaluated studies."""
    if predictions.patient is None:
        return []
    patients = len(np.unique(predictions.patient))
    found = f"The {len(predictions.study_id)} studies are of {patients} patients, as far as these can be told apart."
    if predictions.task == "regression":
        return [f"{found} Intervals and tests take studies as independent: {_TOO_NARROW}"]
    return [
        f"{found} Intervals of metrics, and DeLong's test, allow for studies of a patient that are alike. Other tests, "
        "the smallest difference in accuracy, the band of the ROC curve, the bins of the reliability diagram and the "
        f"intervals by threshold and of each label's sensitivity take studies as independent: {_TOO_NARROW}"
    ]


def write(evaluation_set: EvaluationSet, scored: ScoredStudies, evaluation: Evaluation, made_from: Provenance) -> None:
    """Write the files of an evaluation and print its metrics; process 0 does."""
    dataset, (predictions, threshold, _, members, _) = evaluation_set.dataset, scored
    rows = dict(zip(evaluation_set.study_ids, map(int, evaluation_set.rows), strict=True))
    shown = {name: dataset.records[rows[name]] for name in report.shown_studies(predictions, threshold, evaluation)}
    curves = members[0].workdir / "curves.png"
    volumes = failures.with_evidence({name: _shown_study(record) for name, record in shown.items()}, evaluation, scored)
    announce("Drawing and writing the report")
    report.write_evaluation(
        evaluation_set.folder,
        predictions,
        threshold,
        evaluation,
        made_from,
        volumes,
        history=read_log(members[0].workdir),
        steps_per_epoch=members[0].experiment.steps_per_epoch,
        detectability=evaluation_set.workdir / detectability.FOLDER if len(members) == 1 else None,
        owner=run_id(evaluation_set.workdir),
    )
    steps = ", ".join(str(member.step) for member in members)
    print(
        f"\n{dataset.name}, {evaluation_set.part}: checkpoint {evaluation_set.checkpoint} "
        f"(step{'s' * (len(members) > 1)} {steps}) of {evaluation_set.workdir}"
    )
    print(console.evaluation_text(evaluation))
    print(f"\nReport:          {evaluation_set.folder / 'report.html'}")
    print(f"Predictions:     {evaluation_set.folder / 'predictions.csv'}")
    if len(members) == 1:
        print(f"Learning curves: {curves}")


def _shown_study(record: dict[str, Any]) -> ShownStudy:
    mask = record["lesion_mask"] if record.get("has_lesion_mask") else None
    return ShownStudy(record["volume"], record["spacing_mm"], mask)
