"""Cross-validation as one job: a run for each fold, judged on its fold; their answers pooled, and elsewhere averaged.

WORKDIR/cross_validation.json   what made it
        fold_0 … fold_4         runs like any other
        evaluations/…-out_of_fold-best    each study by the network that never saw it
"""

import dataclasses
import json
import time
from typing import Any

import numpy as np
from etils import epath

from covidscan.config import FREE_TO_CHANGE, Config, DataPaths
from covidscan.distributed import devices, processes
from covidscan.evaluation import comparison, provenance
from covidscan.evaluation import evaluate as evaluation
from covidscan.evaluation.evaluation_set import (
    EvaluationOptions,
    EvaluationSet,
    ScoredStudies,
    check_tested,
    load_judged,
    own_if_built,
    read_table,
)
from covidscan.metrics.predictions import Predictions
from covidscan.runs.workdir import (
    CROSS_VALIDATION,
    OUT_OF_FOLD,
    evaluation_folder,
    is_cross_validation,
    of_fold,
    write_text,
)
from covidscan.trained_models import restore
from covidscan.trained_models.restore import RestoredModel
from covidscan.training.loop import train_and_evaluate
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError

Tables = list[dict[str, Any]]


def cross_validate(config: Config, paths: DataPaths, workdir: str) -> None:
    """Train and judge a run for each fold, and pool what they say; goes on where it was stopped.

    All processes of a job call it.

    Args:
      config: of every run, but for the fold.
      paths: where the data are.
      workdir: of the cross-validation; a file `stop` in it stops it.

    Raises:
      UserError: something that the user can mend is in the way.
      RunAgain: it was asked to stop, and has saved.
    """
    _open(config, workdir)
    for fold in range(config.num_folds):
        member = str(of_fold(workdir, fold))
        if processes.is_process_0():
            print(f"Fold {fold} of {config.num_folds}: {member}")
        train_and_evaluate(dataclasses.replace(config, fold=fold), paths, member, stop_in=workdir)
        if not processes.broadcast_from_process_0(_table(epath.Path(member), config) is not None):
            evaluation.evaluate(member, paths=paths)
    pool(workdir, EvaluationOptions(), paths)


def _judgement(member: epath.Path, config: Config) -> epath.Path:
    return evaluation_folder(member, config.dataset, "test", "best")


def _table(member: epath.Path, config: Config) -> dict[str, Any] | None:
    return read_table(_judgement(member, config))


def _open(config: Config, workdir: str) -> None:
    """Make the folder, or check that it was made with the same flags."""
    storage.check(workdir)
    folder = epath.Path(workdir)
    if (folder / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds a single run: give --fold=all another one")
    if not processes.is_process_0():
        return
    if is_cross_validation(workdir):
        there = Config.from_json(json.loads((folder / CROSS_VALIDATION).read_text())["config"]).to_json()
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
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CROSS_VALIDATION, json.dumps({"config": config.to_json()}, indent=2) + "\n")


def evaluate(workdir: str, *, dataset: str | None, paths: DataPaths | None, wishes: EvaluationOptions) -> None:
    """Judge a cross-validation: on its own studies by pooling, on another data set as an ensemble.

    All processes of a job call it.

    Args:
      workdir: of the cross-validation.
      dataset: another data set, NAME/CONFIG, or None.
      paths: where the data are; None: where they were when the runs were trained.
      wishes: what else to tell.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    devices.enable_compilation_cache()
    if dataset is not None:
        networks = restore.restore_folds(workdir)
        judged = load_judged(networks[0], "test", "best", dataset, paths)
        if judged.external:
            _judge_ensemble(workdir, networks, judged, wishes)
            return
    if wishes.verify:
        for network in restore.restore_folds(workdir):
            evaluation.evaluate(network.workdir, paths=paths, wishes=wishes)
    pool(workdir, wishes, paths)


def pool(workdir: epath.PathLike, wishes: EvaluationOptions, paths: DataPaths | None = None) -> None:
    """Judge all studies, each by what the network said that neither trained nor chose on it.

    All processes call it; process 0 writes.

    Raises:
      UserError: a fold is not judged yet.
    """
    networks = restore.restore_folds(workdir)
    if not processes.is_process_0():
        return
    tables, predictions = [], []
    for network in networks:
        folder = _judgement(network.workdir, network.experiment.config)
        table = read_table(folder)
        if table is None:
            raise UserError(f"{folder} does not exist: first python -m covidscan.evaluate --workdir={network.workdir}")
        tables.append(table)
        predictions.append(Predictions.from_csv((folder / "predictions.csv").read_text(), table["task"]))
    studies = networks[0].own_dataset(paths)
    places = {study_id: row for row, study_id in enumerate(studies.study_ids)}
    pooled = Predictions.pool(predictions)
    rows = np.asarray([places[study_id] for study_id in pooled.study_id])
    whole = studies._replace(parts={OUT_OF_FOLD: rows})
    leak_check = f"Looked for in each of {len(tables)} folds; the first: {tables[0]['context']['leak_check']}"
    judged = EvaluationSet(epath.Path(workdir), whole, OUT_OF_FOLD, False, "best", leak_check, paths)
    point = _operating_point([table["operating_point"] for table in tables])
    seconds = sum(table["context"]["seconds"]["inference"] for table in tables)
    answers = ScoredStudies(pooled, _own_thresholds(tables, predictions), point, networks, seconds)
    by_fold = {f"fold {fold}": provenance.values_of(table["figures"]) for fold, table in enumerate(tables)}
    beside = {
        "baselines": _mean_baselines(tables),
        "shortcuts": [
            f"Fold {fold}: {shortcut}" for fold, table in enumerate(tables) for shortcut in table["shortcuts"]
        ],
        "repeats": comparison.summarise(by_fold, "folds"),
    }
    evaluation.report(judged, answers, evaluation.settled(judged, wishes), beside)


def _own_thresholds(tables: Tables, predictions: list[Predictions]) -> np.ndarray | None:
    """Give each study the threshold of its fold."""
    if tables[0]["threshold"] is None:
        return None
    return np.concatenate(
        [np.full(len(part.study_id), table["threshold"]) for table, part in zip(tables, predictions, strict=True)]
    )


def _operating_point(frozen: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell of the folds' operating points as of one."""
    temperatures = ", ".join(f"{point['temperature']:.2f}" for point in frozen)
    thresholds = ", ".join("none" if point["threshold"] is None else f"{point['threshold']:.2f}" for point in frozen)
    own = f"Each fold has its own threshold ({thresholds}) and temperature ({temperatures})."
    return {
        "criterion": frozen[0]["criterion"],
        "described": f"{frozen[0]['described']} {own}",
        "threshold": None,
        "temperature": float(np.mean([point["temperature"] for point in frozen])),
        "num_studies": sum(point["num_studies"] for point in frozen),
        "step": frozen[0]["step"],
    }


def _mean_baselines(tables: Tables) -> list[dict[str, Any]]:
    """Average each baseline's figures over the folds."""
    found = []
    for several in zip(*(table["baselines"] for table in tables), strict=True):
        figures = {}
        for name in several[0]["figures"]:
            values = [baseline["figures"][name]["value"] for baseline in several]
            defined = [value for value in values if value is not None]
            figures[name] = {"value": float(np.mean(defined)) if defined else None, "interval": None}
        verdicts = list(dict.fromkeys(baseline["what"] for baseline in several))
        what = verdicts[0] if len(verdicts) == 1 else " ".join(f"Fold {k}: {b['what']}" for k, b in enumerate(several))
        found.append({**several[0], "what": f"{what} Mean over the folds.", "figures": figures})
    return found


def _judge_ensemble(
    workdir: str, networks: list[RestoredModel], judged: EvaluationSet, wishes: EvaluationOptions
) -> None:
    """Average the probabilities of all folds' networks on another data set."""
    judged = judged._replace(workdir=epath.Path(workdir), leak_check=check_tested(networks, judged.studies))
    wishes = evaluation.settled(judged, wishes)
    chosen = [evaluation.choices_for(network, judged, wishes) for network in networks]
    evaluation.record_test_access(networks[0], judged, wishes)
    rows, start = judged.studies.parts["test"], time.perf_counter()
    said = [
        frozen.apply(network.predict(judged.studies, rows)) for frozen, network in zip(chosen, networks, strict=True)
    ]
    if not processes.is_process_0():
        return
    predictions = dataclasses.replace(
        said[0],
        probability=np.mean([one.probability for one in said], axis=0),
        uncalibrated=np.mean([one.uncalibrated for one in said], axis=0),
    )
    thresholds = [frozen.threshold for frozen in chosen if frozen.threshold is not None]
    threshold = float(np.mean(thresholds)) if thresholds else None
    point = _operating_point([dataclasses.asdict(frozen) for frozen in chosen])
    how = "The ensemble's probability and threshold are the means of theirs."
    point |= {"threshold": threshold, "described": f"{point['described']} {how}"}
    answers = ScoredStudies(predictions, threshold, point, networks, time.perf_counter() - start)
    beside = provenance.baselines_and_shortcuts(judged, answers, own_if_built(networks[0]))
    evaluation.report(judged, answers, wishes, beside)
