"""Comparison of several evaluated runs: read their evaluations, match the studies, test each two runs."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.config import Config
from covidscan.data import leakage
from covidscan.evaluation.comparison import StoredEvaluation, compare, is_outdated, read_evaluation
from covidscan.metrics import metrics_json, paired_tests, sample_size
from covidscan.metrics.predictions import label_text
from covidscan.metrics.results import Metric
from covidscan.metrics.run_comparison import ComparedRun, Pair, RunComparison
from covidscan.report import wording
from covidscan.report.charts import Curve, learning
from covidscan.report.run_comparison import DrawnRun, write_comparison
from covidscan.runs.log import read_log
from covidscan.runs.workdir import (
    OUT_OF_FOLD,
    evaluation_folder,
    first_run,
    is_cross_validation,
    read_cross_validation,
    read_run,
    run_id,
)
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError
from tfds_mosmed.facts import has_public_ids

MOST_NAMED = 5  # studies of one run that the other was not evaluated on


class _Run(NamedTuple):
    """A run with its evaluation.

    Attributes:
      given: the run, as the user named it.
      name: unique among the runs.
      stored: its evaluation.
      member: the run's workdir; of a cross-validation that of the first fold.
      identity: study id -> what the same study has in every run, and no other.
    """

    given: str
    name: str
    stored: StoredEvaluation
    member: epath.Path
    identity: dict[str, str]


def compare_runs(given: Sequence[str], output_dir: epath.PathLike) -> RunComparison:
    """Compare runs, and write the page, the pictures and compare.json.

    Args:
      given: two or more workdirs, of which the evaluation on the test part at the best checkpoint is read, or folders
        in their `evaluations`.
      output_dir: of the files.

    Returns:
      The comparison.

    Raises:
      UserError: a run was not evaluated, two are the same one, or they differ in task or reference standard.
    """
    folders = [_evaluation_folder(each) for each in given]
    for (one, folder), (other, same) in combinations(zip(given, folders, strict=True), 2):
        if folder == same:
            raise UserError(f"{other}: it is the same evaluation as that of {one}: give different runs")
    runs = [_read(*each) for each in zip(given, _names(given), folders, strict=True)]
    for other in runs[1:]:
        _check_question(runs[0], other)
    configs = [_config(run) for run in runs]
    baselines = {run.stored.evaluation.baseline for run in runs}
    comparison = RunComparison(
        task=runs[0].stored.evaluation.task,
        label_names=runs[0].stored.evaluation.label_names,
        baseline=baselines.pop() if len(baselines) == 1 else None,
        runs=[_describe(run) for run in runs],
        pairs=_corrected([_pair(*pair) for pair in combinations(runs, 2)]),
        flags=_differing(configs),
        versions=_differing([run.stored.provenance.versions for run in runs]),
    )
    drawn = [
        DrawnRun(run.name, run.stored.predictions, run.stored.evaluation.calibration, _learning(run)) for run in runs
    ]
    write_comparison(output_dir, comparison, drawn)
    return comparison


def _evaluation_folder(given: str) -> epath.Path:
    """Return the folder of the evaluation that an argument names; UserError where there is none."""
    storage.check(given)
    path = storage.absolute(given)
    if (path / metrics_json.FILE).exists():
        return path
    if is_cross_validation(given):
        folder = evaluation_folder(path, read_cross_validation(given).dataset, OUT_OF_FOLD, "best")
    else:
        folder = evaluation_folder(path, read_run(given)["config"]["dataset"], "test", "best")
    if not (folder / metrics_json.FILE).exists():
        raise UserError(
            f"{given}: evaluations/{folder.name} does not exist: first python -m covidscan.evaluate --workdir={given}, "
            "or name another folder in its evaluations"
        )
    return folder


def _names(given: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    parts = [PurePath(each).parts for each in given]
    longest = max(map(len, parts))
    for length in range(1, longest):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(given)


def _read(given: str, name: str, folder: epath.Path) -> _Run:
    workdir = folder.parent.parent
    stored = read_evaluation(folder, run_id(workdir))
    assert stored is not None  # `_evaluation_folder` found it
    member = first_run(workdir)
    return _Run(given, name, stored, member, _identity(stored, member))


def _identity(stored: StoredEvaluation, member: epath.Path) -> dict[str, str]:
    """Return what tells each study from all others; equal ids may be different studies in folders of a user's files."""
    made_from, ids = stored.provenance, stored.predictions.study_id
    family = made_from.dataset.partition("/")[0]
    if family in leakage.GLOBAL_IDS:
        return {study_id: f"{family} {study_id}" for study_id in ids}
    records = {study_id: f"{made_from.fingerprint} {study_id}" for study_id in ids}
    if made_from.external:
        return records
    for keys in leakage.read(member).values():
        records |= dict(zip(keys.study_id, keys.voxels_sha256, strict=True))  # on any grid
    return {study_id: records[study_id] for study_id in ids}


def _check_question(first: _Run, other: _Run) -> None:
    """Refuse runs that answer different questions."""
    here, there = (run.stored.evaluation for run in (first, other))
    if (here.task, here.label_names) != (there.task, there.label_names):
        texts = [f"{each.task} ({', '.join(each.label_names)})" for each in (there, here)]
        raise UserError(
            f"{other.given}: its task is {texts[0]}, that of {first.given} {texts[1]}: give runs of one task"
        )
    labels = [
        {run.identity[study_id]: label_text(each, row) for row, study_id in enumerate(each.study_id)}
        for run in (first, other)
        for each in [run.stored.predictions]
    ]
    categories = "" if here.regression else "with the same --negative_categories "
    for study_id, identity in other.identity.items():
        if labels[0].get(identity, labels[1][identity]) != labels[1][identity]:
            raise UserError(
                f"{other.given}: study {study_id} is {labels[1][identity]} there and {labels[0][identity]} in "
                f"{first.given}: give runs {categories}on the same records"
            )


def _pair(first: _Run, second: _Run) -> Pair:
    """Test two runs where both were evaluated on the same studies, or count the studies that differ."""
    runs = (first, second)
    identities = [set(run.identity.values()) for run in runs]
    alone = [
        [study_id for study_id, identity in run.identity.items() if identity not in others]
        for run, others in zip(runs, reversed(identities), strict=True)
    ]
    named = [
        each[:MOST_NAMED] if has_public_ids(run.stored.provenance.dataset) else []
        for run, each in zip(runs, alone, strict=True)
    ]
    shared = len(identities[0] & identities[1])
    if any(alone):
        description = (
            f"Not tested, as the studies differ: {shared} are shared, {len(alone[0])} are of {first.name} alone, "
            f"{len(alone[1])} of {second.name} alone."
        )
        differences = {}
    else:
        one, other = (
            dataclasses.replace(
                run.stored.predictions, study_id=[run.identity[each] for each in run.stored.predictions.study_id]
            )
            for run in runs
        )
        found = compare(one, other, first.stored.decision, second.stored.decision, second.name, first.name)
        description, differences = found.description, found.metrics
    return Pair(
        first=first.name,
        second=second.name,
        num_shared=shared,
        num_alone=(len(alone[0]), len(alone[1])),
        alone=(named[0], named[1]),
        differences=differences,
        corrected={},
        description=description,
    )


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Add Holm's correction of each metric's p-values for the number of pairs, and of labels."""
    corrected: list[dict[str, float]] = [{} for _ in pairs]
    tests = collections.defaultdict(list)
    for index, pair in enumerate(pairs):
        for name in pair.differences:
            tests[wording.without_label(name)].append((index, name))
    for tested in tests.values():
        p_values = paired_tests.holm([pairs[index].differences[name].p_value for index, name in tested])
        for (index, name), value in zip(tested, p_values, strict=True):
            corrected[index][name] = value
    return [dataclasses.replace(pair, corrected=each) for pair, each in zip(pairs, corrected, strict=True)]


def _config(run: _Run) -> dict[str, Any]:
    """Return a run's flags, and those of its evaluation; what earlier versions lacked has its default."""
    made_from = run.stored.provenance
    flags = Config.from_json(made_from.config).to_json()
    if made_from.arrangement == OUT_OF_FOLD:
        flags["fold"] = "all"
    evaluated_with = {"prevalence": made_from.options.prevalence, "tta": made_from.options.tta}
    return flags | {name: value for name, value in evaluated_with.items() if value}


def _differing(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the value of each run, by name, of what is not the same in all."""
    found = {
        name: [each.get(name) for each in values] for name in dict.fromkeys(name for each in values for name in each)
    }
    return {name: each for name, each in found.items() if any(value != each[0] for value in each)}


def _learning(run: _Run) -> dict[str, dict[str, Curve]]:
    """Return the learning curves against passes over the training studies; see `charts.learning`."""
    described = read_run(run.member)
    steps_per_epoch = described["data"]["num_train"] / described["config"]["batch_size"]
    return {
        name: {split: Curve(curve.x / steps_per_epoch, curve.y) for split, curve in splits.items()}
        for name, splits in learning(read_log(run.member)).items()
    }


def _describe(run: _Run) -> ComparedRun:
    evaluation, made_from = run.stored.evaluation, run.stored.provenance
    lines = [line for line in read_log(run.member) if line["split"] == "train"]
    rates = [line["volumes_per_second"] for line in lines[1:] if line.get("volumes_per_second")]
    seconds = made_from.seconds.get("inference")
    calibration = evaluation.calibration.after.metrics if evaluation.calibration else {}
    outdated = is_outdated(made_from, run.member)
    if sample_size.is_vague(evaluation.calibration):
        calibration = calibration | {"slope": Metric(None)}
    return ComparedRun(
        name=run.name,
        workdir=run.given,
        dataset=made_from.dataset,
        part=made_from.part,
        external=made_from.external,
        arrangement=made_from.arrangement,
        num_studies=evaluation.num_studies,
        counts=evaluation.counts,
        metrics=evaluation.metrics | {f"auroc:{each.name}": each.metrics["auroc"] for each in evaluation.labels},
        calibration=calibration,
        threshold=evaluation.threshold,
        checkpoint=made_from.checkpoint,
        num_steps=lines[-1]["step"] if lines else None,
        num_parameters=made_from.num_parameters,
        training_rate=float(np.median(rates)) if rates else None,
        inference_rate=evaluation.num_studies / seconds if seconds else None,
        fingerprint=made_from.fingerprint,
        split_hash=made_from.split_hash,
        trained_split_hash=made_from.trained_split_hash,
        device=made_from.computed_on["device"],
        code_version=made_from.versions["covidscan"],
        date=made_from.date,
        warnings=[
            *([f"It was evaluated at step {made_from.checkpoint}, which is no longer the best checkpoint."] * outdated),
            *(f"{each.title}: {each.text}" for each in wording.not_beaten(evaluation)),
            *(f"Shortcut: {text}" for text in evaluation.shortcuts),
            *(f"Too few studies: {text}" for text in evaluation.warnings),
        ],
    )
