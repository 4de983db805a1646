"""Provenance of an evaluation: data, run, software and the commands that reproduce it."""

import dataclasses
import datetime
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from etils import epath

from covidscan.config import AUGMENTATION_LEVELS, Config, DataPaths
from covidscan.evaluation.evaluation_set import EvaluationSet, ScoredStudies
from covidscan.metrics import metrics_json
from covidscan.metrics.provenance import DataWarning, EvaluationOptions, Provenance, StudyFlow, TestAccess, UsedNetwork
from covidscan.runs import test_log
from covidscan.runs.workdir import OUT_OF_FOLD
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.building.cohort import without_path


def describe(evaluation_set: EvaluationSet, scored: ScoredStudies, options: EvaluationOptions) -> Provenance:
    """Collect the provenance of an evaluation.

    Args:
      evaluation_set: the studies.
      scored: their predictions.
      options: optional parts of the evaluation.
    """
    dataset, network = evaluation_set.dataset, scored.members[0]
    run, trained_on = network.run, network.experiment.config.dataset
    workdirs = dict.fromkeys([evaluation_set.workdir, *(member.workdir for member in scored.members)])
    arrangement = "ensemble" if len(scored.members) > 1 else "single"
    return Provenance(
        config=run["config"],
        workdir=str(evaluation_set.workdir),
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        split_hash=dataset.split_hash,
        part=evaluation_set.part,
        external=evaluation_set.external,
        is_phantom=any(name.startswith("ct_phantom/") for name in (trained_on, dataset.name)),
        counts={name: dataset.counts(name) for name in dataset.parts},
        skipped=[(study_id, without_path(study_id, reason)) for study_id, reason in dataset.skipped],
        flow=StudyFlow(
            found=len(dataset.study_ids) + len(dataset.skipped),
            skipped=len(dataset.skipped),
            parts={name: len(rows) for name, rows in dataset.parts.items()},
            protocol="all studies evaluated" if evaluation_set.external else run["config"]["protocol"],
        ),
        leak_check=evaluation_set.leak_check + _described_start(run),
        test_accesses=_test_accesses(workdirs),
        checkpoint=network.step,
        checkpoint_choice=evaluation_set.checkpoint,
        num_parameters=_num_parameters(network),
        num_members=len(scored.members),
        arrangement=OUT_OF_FOLD if evaluation_set.part == OUT_OF_FOLD else arrangement,
        trained_split_hash=run["data"]["split_hash"],
        options=options,
        computed_on=computed_on(),
        versions={"covidscan": run["code_version"], **run["package_versions"]},
        seconds={"inference": scored.seconds},
        date=now(),
        commands=commands(evaluation_set, scored.members, options),
        data_warnings=[*dataset.warnings(), *(_training_warnings(network) if evaluation_set.external else [])],
        left_out=dataset.left_out,
        cohort=dataset.summarize(),
        networks=[
            UsedNetwork(str(each.workdir), each.run["config"]["model"], _num_parameters(each), each.step)
            for each in scored.members
        ],
    )


def _num_parameters(network: RestoredModel) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(network.variables))


def _test_accesses(workdirs: Iterable[epath.Path]) -> list[TestAccess]:
    """Return the accesses that are logged in any of these workdirs, oldest first; that of an ensemble is in several."""
    found = dict.fromkeys(access for workdir in workdirs for access in test_log.read(workdir))
    return sorted(found, key=lambda access: access.date)


def _described_start(run: dict[str, Any]) -> str:
    """Return a sentence about the network that a run began with, if it began with one."""
    began = run.get("initialisation")
    if began is None:
        return ""
    return (
        f" The network began with {len(began['loaded'])} tensors of {began['source']} (trained on "
        f"{began['trained_on']}). {began['leak_check']}"
    )


def _training_warnings(network: RestoredModel) -> list[DataWarning]:
    """Return the warnings about the studies that a run was trained on; none of runs of earlier versions are known."""
    return metrics_json.load(list[DataWarning], network.run["data"].get("warnings", []))


def computed_on() -> dict[str, str]:
    """Return the device that networks compute on here; results in bfloat16 and in float32 differ."""
    return {"device": jax.devices()[0].device_kind, "platform": jax.default_backend()}


def now() -> str:
    """Return the date and time, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def studies_flag(evaluation_set: EvaluationSet) -> str:
    """Return the flag that selects the evaluated studies."""
    if evaluation_set.part == OUT_OF_FOLD:
        return ""
    if not evaluation_set.external:
        return f" --split={evaluation_set.part}"
    return f" --dataset={evaluation_set.dataset.name.partition('@')[0]}"


def commands(evaluation_set: EvaluationSet, members: Sequence[RestoredModel], options: EvaluationOptions) -> list[str]:
    """Return the commands that reproduce an evaluation: training, evaluation, and its verification."""
    paths = members[0].run["paths"]
    runs = members if evaluation_set.ensemble else members[:1]
    workdirs = [member.workdir for member in runs] if evaluation_set.ensemble else [evaluation_set.workdir]
    workdir = {"workdir": ",".join(map(str, workdirs))}
    checkpoint = {} if evaluation_set.part == OUT_OF_FOLD else {"checkpoint": evaluation_set.checkpoint}
    elsewhere = dataclasses.asdict(evaluation_set.paths) if evaluation_set.paths else paths
    moved = {} if elsewhere == paths else _given(elsewhere, DataPaths(data_dir=""))
    asked = {name: value for name, value in dataclasses.asdict(options).items() if value}
    evaluate = _command("evaluate", workdir | checkpoint | moved | asked) + studies_flag(evaluation_set)
    verify = [] if evaluation_set.ensemble else [f"{evaluate} --verify"]
    return [*(_training(member, each) for member, each in zip(runs, workdirs, strict=True)), evaluate, *verify]


def _training(network: RestoredModel, workdir: epath.Path) -> str:
    """Return the command that trains a run; or all folds, where the workdir is not that of the network."""
    config = network.experiment.config
    usual = Config().to_json() | AUGMENTATION_LEVELS[config.augmentation]  # what its level sets where it is not given
    flags = {name: value for name, value in config.to_json().items() if value != usual[name]}
    if "windows" in flags:
        flags["windows"] = [f"{level:g}:{width:g}" for level, width in flags["windows"]]
    if workdir != network.workdir:
        flags["fold"] = "all"
    return _command(
        "train", flags | {"workdir": str(workdir)} | _given(network.run["paths"], DataPaths(data_dir="data"))
    )


def _given(paths: dict[str, Any], usual: DataPaths) -> dict[str, Any]:
    return {name: value for name, value in paths.items() if value != getattr(usual, name)}


def _command(name: str, flags: dict[str, Any]) -> str:
    texts = {
        flag: ",".join(map(str, value)) if isinstance(value, list | tuple) else value for flag, value in flags.items()
    }
    return shlex.join(["python", "-m", f"covidscan.{name}", *(f"--{flag}={text}" for flag, text in texts.items())])
