"""What stands beside the figures of an evaluation: baselines, subgroups, other runs, and what a reader must know."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from covidscan.config import FREE_TO_CHANGE
from covidscan.data.dataset import Dataset
from covidscan.data.image_features import features_of
from covidscan.evaluation import baselines, comparison, reproduce, subgroups
from covidscan.evaluation.evaluation_set import (
    EvaluationOptions,
    EvaluationSet,
    ScoredStudies,
    read_table,
)
from covidscan.metrics import thresholds
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import TestAccess
from covidscan.runs.workdir import CROSS_VALIDATION, OUT_OF_FOLD, evaluation_folder
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError


def baselines_and_shortcuts(judged: EvaluationSet, answers: ScoredStudies, own: Dataset | None) -> dict[str, Any]:
    """Judge what needs no network on the same studies: "baselines" and "shortcuts" of `judge.judge`.

    Args:
      judged: the studies.
      answers: of the network.
      own: the data set that trained it; None where its records are not there.

    Returns:
      Both, and "notes" that say why there are none.
    """
    reason = None
    if own is None:
        reason = f"the training studies' records are not in {answers.members[0].run['paths']['data_dir']}"
    elif judged.part == "train":
        reason = "they would be judged on the studies that they learn from"
    if own is None or reason:
        return {"baselines": [], "shortcuts": [], "notes": [f"Baselines and probes were left out: {reason}."]}
    train, rows = own.parts["train"], judged.studies.parts[judged.part]
    found, shortcuts = baselines.compare_with_baselines(
        answers.predictions.task,
        answers.predictions.label_names,
        features_of(own.records, train),
        own.labels.values[train],
        features_of(judged.studies.records, rows),
        answers.predictions.label,
    )
    return {"baselines": found, "shortcuts": shortcuts}


def subgroups_of(judged: EvaluationSet, answers: ScoredStudies, metadata: str | None) -> list[dict[str, Any]]:
    """Judge groups of studies: by category, spacing, slices, and the columns of a metadata file.

    Args:
      judged: the studies.
      answers: of the network.
      metadata: CSV file, or None.

    Raises:
      UserError: the metadata cannot be used.
    """
    predictions, index = answers.predictions, judged.studies.index
    rows = judged.studies.parts[judged.part]
    columns: dict[str, Sequence[Any]] = {
        "category": predictions.category,
        "in-plane spacing (mm)": index.source_spacing_mm[rows, 1].tolist(),
        "slice spacing (mm)": index.source_spacing_mm[rows, 0].tolist(),
        "slices": index.num_slices[rows].tolist(),
    }
    if metadata:
        columns |= subgroups.read_metadata(metadata, predictions.study_id)
    return subgroups.subgroups(predictions.task, predictions.label, predictions.probability, answers.threshold, columns)


def check_wishes(judged: EvaluationSet, wishes: EvaluationOptions) -> None:
    """Look at what an evaluation is asked to compare with, before it costs anything.

    Raises:
      UserError: a file or run is not there, or does not fit.
    """
    if wishes.metadata:
        subgroups.read_metadata(wishes.metadata, [judged.studies.study_ids[row] for row in _rows(judged)])
    if wishes.compare:
        stored("compare", wishes.compare, judged)
    for other in wishes.repeats:
        stored("repeats", other, judged)


def _rows(judged: EvaluationSet) -> np.ndarray:
    return judged.studies.parts[judged.part]


def stored(flag: str, workdir: str, judged: EvaluationSet) -> tuple[dict[str, Any], str]:
    """Read the evaluation of another run on the same studies, at its best checkpoint.

    Args:
      flag: that named the run.
      workdir: of the run.
      judged: the studies.

    Returns:
      Its metrics.json and its predictions.csv.

    Raises:
      UserError: the run was not judged on them, or its parts are others, so that it may have been trained on them.
    """
    storage.check(workdir)
    folder = evaluation_folder(workdir, judged.studies.dataset, judged.part, "best")
    table = read_table(folder)
    if table is None:
        if (judged.part == OUT_OF_FOLD) != (epath.Path(workdir) / CROSS_VALIDATION).exists() and not judged.external:
            raise UserError(f"--{flag}={workdir}: compare runs with runs, cross-validations with cross-validations")
        raise UserError(
            f"--{flag}={workdir}: {folder} does not exist: "
            f"first python -m covidscan.evaluate --workdir={workdir}{reproduce.which(judged)}"
        )
    if not judged.external and table["context"]["split_hash"] != judged.studies.split_hash:
        raise UserError(
            f"--{flag}={workdir}: its studies are split in another way than this run's, so it may have been trained on "
            "those judged here: train both with the same --protocol, --fold, --split_seed and --data_dir"
        )
    return table, (folder / "predictions.csv").read_text()


def compared(judged: EvaluationSet, answers: ScoredStudies, other: str) -> dict[str, Any]:
    """Test the answers against another run's on the same studies; see `comparison.compare` and `stored`."""
    table, text = stored("compare", other, judged)
    mine, theirs = answers.predictions, Predictions.from_csv(text, table["task"])
    decision = thresholds.decide(mine.task, mine.probability, answers.threshold)
    return comparison.compare(mine, theirs, decision, theirs.read_decisions(text), other)


def repeated(
    judged: EvaluationSet, answers: ScoredStudies, figures: dict[str, Any], others: Sequence[str]
) -> dict[str, Any]:
    """Sum up this run's figures with those of its repeats; see `comparison.summarise` and `stored`."""
    members = {str(judged.workdir): figures}
    mine = _alike(answers.members[0].run["config"])
    for other in others:
        table, text = stored("repeats", other, judged)
        theirs = _alike(table["context"]["config"])
        differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        if differing:
            raise UserError(
                f"--repeats={other}: it differs from this run in more than its seed (--{', --'.join(differing)}): "
                "use --compare for runs of other flags"
            )
        ids = set(Predictions.from_csv(text, table["task"]).study_id)
        if ids != {judged.studies.study_ids[row] for row in _rows(judged)}:
            raise UserError(f"--repeats={other}: it was judged on other studies: evaluate both on the same ones")
        members[str(epath.Path(other))] = table["figures"]
    return comparison.summarise({name: values_of(figures) for name, figures in members.items()}, "runs")


def _alike(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a run's flags in what its repeats may differ."""
    return {name: value for name, value in config.items() if name not in ("seed", *FREE_TO_CHANGE)}


def values_of(figures: dict[str, Any]) -> dict[str, float | None]:
    """Take the values alone out of "figures" of `judge.judge`."""
    return {name: figure["value"] for name, figure in figures.items()}


def computed_on() -> dict[str, str]:
    """Tell on what the network computes here; figures of bfloat16 and of float32 differ."""
    return {"device": jax.devices()[0].device_kind, "platform": jax.default_backend()}


def context(
    judged: EvaluationSet, answers: ScoredStudies, wishes: EvaluationOptions, opened: Sequence[TestAccess]
) -> dict[str, Any]:
    """Tell a report what it must know besides the figures; see `report.Context`.

    Args:
      judged: the studies.
      answers: of the network or networks.
      wishes: what else was asked.
      opened: each time the test part was opened.
    """
    studies, network = judged.studies, answers.members[0]
    run, trained_on = network.run, network.experiment.config.dataset
    return {
        "config": run["config"],
        "workdir": str(judged.workdir),
        "dataset": studies.dataset,
        "fingerprint": studies.fingerprint,
        "split_hash": studies.split_hash,
        "part": judged.part,
        "external": judged.external,
        "is_phantom": any(name.startswith("ct_phantom/") for name in (trained_on, studies.dataset)),
        "counts": {name: studies.counts(name) for name in studies.parts},
        "skipped": studies.skipped,
        "flow": {
            "found": len(studies.study_ids) + len(studies.skipped),
            "skipped": len(studies.skipped),
            "parts": {name: len(rows) for name, rows in studies.parts.items()},
            "protocol": "all studies judged" if judged.external else run["config"]["protocol"],
        },
        "leak_check": judged.leak_check,
        "test_openings": [dataclasses.asdict(access) for access in opened],
        "checkpoint": network.step,
        "checkpoint_choice": judged.checkpoint,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(network.variables)),
        "num_members": len(answers.members),
        "arrangement": OUT_OF_FOLD
        if judged.part == OUT_OF_FOLD
        else "ensemble"
        if len(answers.members) > 1
        else "single",
        "trained_split_hash": run["data"]["split_hash"],
        "wishes": {name: value for name, value in wishes._asdict().items() if name != "verify"},
        "computed_on": computed_on(),
        "versions": {"covidscan": run["code_version"], **run["package_versions"]},
        "seconds": {"inference": answers.seconds},
        "date": now(),
        "commands": reproduce.commands(judged, answers.members[0], wishes),
    }


def now() -> str:
    """Give the date and time, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
