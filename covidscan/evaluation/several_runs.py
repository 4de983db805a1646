"""Evaluation of several runs as one ensemble: seeds, networks or folds that share their test studies."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
from absl import logging

from covidscan.config import DataPaths
from covidscan.data.dataset import Dataset
from covidscan.distributed import devices, processes
from covidscan.evaluation.cross_validation import score_ensemble
from covidscan.evaluation.evaluate import assess, check_options, run_baselines, write
from covidscan.evaluation.evaluation_set import (
    RELABELLED,
    EvaluationSet,
    ScoredStudies,
    check_leaks,
    load_evaluation_set,
    training_dataset_if_built,
)
from covidscan.metrics import prevalence
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.provenance import EvaluationOptions
from covidscan.metrics.results import OperatingPoint
from covidscan.runs import operating_points
from covidscan.runs.workdir import is_cross_validation
from covidscan.trained_models import ensemble, restore
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError


def evaluate_runs(
    workdirs: Sequence[str],
    *,
    split: str,
    checkpoint: str,
    dataset: str | None,
    paths: DataPaths | None,
    options: EvaluationOptions,
) -> None:
    """Evaluate the mean of the runs' recalibrated probabilities; see `evaluate.evaluate`.

    All processes call it. Process 0 writes the evaluation to the workdir of the first run.

    Args:
      workdirs: of the runs.
      split: part of their data set.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      dataset: another data set, NAME/CONFIG, or None.
      paths: where the data are; None: where they were when the first run was trained.
      options: optional parts of the evaluation.

    Raises:
      UserError: the runs do not fit each other, or one was developed on studies that test them all.
    """
    if options.repeats:
        raise UserError(
            "--repeats is of single runs, which an ensemble is none of: evaluate each alone, or leave it out"
        )
    devices.enable_compilation_cache()
    networks = _restore(workdirs, checkpoint)
    evaluation_set = load_evaluation_set(networks[0], split, checkpoint, dataset, paths)
    evaluation_set = _checked(networks, evaluation_set)._replace(prevalence=options.prevalence, tta=options.tta)
    options = dataclasses.replace(check_options(evaluation_set, options), repeats=[])  # earlier versions took some
    own = None if evaluation_set.external else paths
    points = [
        network.operating_point(functools.partial(network.own_dataset, own), tta=options.tta) for network in networks
    ]
    known = operating_points.mean_prevalence(points)
    prevalence.check(networks[0].experiment.config.task, known, options.prevalence, ",".join(workdirs))
    datasets = [
        training_dataset_if_built(network) if evaluation_set.external else network.own_dataset(own)
        for network in networks
    ]
    evaluation_set = _with_relabelled(evaluation_set, networks, datasets)
    chosen = _freeze_threshold(networks, points, datasets)
    points = operating_points.with_out_of_fold(ensemble.folder(networks), points, restore.checksums(networks))
    prevalence.check_criteria([point.criterion for point in points], options.prevalence)
    scored = score_ensemble(networks, evaluation_set, points)
    scored = _described(scored, chosen).adapted(options.prevalence)
    if processes.is_process_0():
        found = run_baselines(evaluation_set, scored)
        write(evaluation_set, scored, *assess(evaluation_set, scored, options, found))


def _restore(workdirs: Sequence[str], checkpoint: str) -> list[RestoredModel]:
    """Restore the networks, and check that they are of one task, grid and --windows."""
    for workdir in workdirs:
        if is_cross_validation(workdir):
            raise UserError(
                f"--workdir={workdir} is a cross-validation, which is evaluated alone: name its folds, as in "
                f"{workdir}/fold_0, or other runs"
            )
    networks = [restore.restore(workdir, checkpoint) for workdir in workdirs]
    ensemble.check_alike(networks)
    return networks


def _checked(networks: Sequence[RestoredModel], evaluation_set: EvaluationSet) -> EvaluationSet:
    """Check that no member was developed on the evaluated studies, and name the evaluation after all members."""
    first, checks = networks[0], []
    for network in networks:
        if evaluation_set.part != "test" and network.run["data"]["split_hash"] != first.run["data"]["split_hash"]:
            raise UserError(
                f"--workdir: {network.workdir} has another split than {first.workdir}, so they share no "
                f"{evaluation_set.part} part: evaluate --split=test, or each alone"
            )
        try:
            checks.append(check_leaks([network], evaluation_set.dataset))
        except UserError as error:
            raise UserError(
                f"--workdir={network.workdir} cannot be in this ensemble, as studies of the test developed it "
                f"({error}): leave it out, or give runs of one split"
            ) from error
    name = ensemble.folder(networks).name
    return evaluation_set._replace(ensemble=name, leak_check=" ".join(dict.fromkeys(checks)))


def _with_relabelled(
    evaluation_set: EvaluationSet, networks: Sequence[RestoredModel], datasets: Sequence[Dataset | None]
) -> EvaluationSet:
    """Name the members that were trained with other labels than their studies have now."""
    found = [
        str(network.workdir)
        for network, dataset in zip(networks, datasets, strict=True)
        if dataset is not None and not dataset.is_labelled_as(network.run["data"])
    ]
    if not found:
        return evaluation_set
    told = f"{RELABELLED} It is so with {', '.join(found)}."
    logging.warning("%s", told)
    return evaluation_set._replace(leak_check=f"{evaluation_set.leak_check} {told}")


def _freeze_threshold(
    networks: Sequence[RestoredModel], points: Sequence[OperatingPoint], datasets: Sequence[Dataset | None]
) -> OperatingPoint | None:
    """Choose the threshold of the ensemble where that can be, and freeze it, so that predictions have it too.

    Returns:
      The operating point; None where the mean of the members' thresholds is used.
    """
    folder, tta, parameters = ensemble.folder(networks), points[0].tta, restore.checksums(networks)
    read = functools.partial(operating_points.read, folder, operating_points.OUT_OF_FOLD_STEP, tta, parameters)
    known = [dataset for dataset in datasets if dataset is not None]
    if len(known) == len(networks) and not processes.decided_by_process_0(lambda: read() is not None):
        chosen = choose(networks, points, known)
        if chosen is not None and processes.is_process_0():
            storage.make_folder(folder)
            operating_points.freeze(folder, chosen, parameters)
        processes.wait_for_all("the threshold of the ensemble")
    return read()


def choose(
    networks: Sequence[RestoredModel], points: Sequence[OperatingPoint], datasets: Sequence[Dataset]
) -> OperatingPoint | None:
    """Choose the threshold of an ensemble on validation studies; all processes call it.

    Runs that share their validation studies choose on the mean of their predictions. Runs whose validation studies
    are all different, as those of folds, choose on all of these, each predicted by the run that did not train on it.

    Args:
      networks: the networks.
      points: the operating point of each.
      datasets: the own data set of each.

    Returns:
      The operating point; None where neither is the case: then the mean of their thresholds is used.
    """
    # By voxels: folders of different studies often have the same names in them.
    parts = [dataset.keys.take(dataset.parts["validation"]).voxels_sha256 for dataset in datasets]
    labels = [dataset.labels.values[dataset.parts["validation"]] for dataset in datasets]
    shared = all(part == parts[0] for part in parts) and all(np.array_equal(each, labels[0]) for each in labels)
    if not shared and any({*one} & {*other} for one, other in itertools.combinations(parts, 2)):
        return None
    predictions = [
        network.predict(dataset, dataset.parts["validation"], point.tta).calibrated(point)
        for network, dataset, point in zip(networks, datasets, points, strict=True)
    ]
    if shared:
        where = "the validation studies, which the runs share, by the mean of their probabilities"
        pooled = dataclasses.replace(
            predictions[0], probability=np.mean([one.probability for one in predictions], axis=0)
        )
    else:
        where = "the validation studies of all runs, each predicted by the run that chose on it and did not train on it"
        pooled = Predictions.pool(
            [
                dataclasses.replace(one, study_id=[f"{number}/{study_id}" for study_id in one.study_id])
                for number, one in enumerate(predictions)
            ]
        )
    criteria = {
        tuple(
            getattr(network.experiment.config, name) for name in ("operating_point", "target_sensitivity", "cost_ratio")
        )
        for network in networks
    }
    if len(criteria) > 1:  # no criterion is that of all: the members' own thresholds are averaged
        return None
    return operating_points.choose_for_ensemble(networks[0].experiment.config, pooled, points, where)


def _described(scored: ScoredStudies, chosen: OperatingPoint | None) -> ScoredStudies:
    """Describe how the threshold of an ensemble was chosen."""
    if scored.predictions.task == "regression":
        return scored
    point = scored.operating_point
    description = "The threshold is the mean of its members', each chosen on its own validation studies."
    if chosen is not None:
        description = chosen.description
        point = dataclasses.replace(
            point, criterion=chosen.criterion, num_studies=chosen.num_studies, num_in_smallest_fold=None
        )
    description += " The ensemble's probability is the mean of its members', each recalibrated by its own point."
    return scored._replace(operating_point=dataclasses.replace(point, description=description))
