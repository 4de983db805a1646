"""Judging a trained network: choose studies, predict each once, write figures and a report."""

import datetime
import time
from typing import Any

import jax
import numpy as np

from covidscan import hosts, judge, leaks, parallel, tasks, trained
from covidscan.data import Studies, load_studies
from covidscan.flags import DataPaths
from covidscan.trained import Trained
from tfds_mosmed.errors import UserError


def evaluate(
    workdir: str,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: str | None = None,
    paths: DataPaths | None = None,
) -> None:
    """Evaluate a run on a split of its own data set, or on all of another one as an external test.

    All processes of a job predict; process 0 writes the evaluation.

    Args:
      workdir: the run; nothing else is needed.
      split: "train", "validation" or "test".
      checkpoint: "best" by validation AUROC, "latest" or a step.
      dataset: another data set, NAME/CONFIG, on the same grid; it is judged whole, `split` says nothing then.
      paths: where the data are; None: where they were when the run was trained.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    parallel.keep_compiled_programs()
    network = trained.restore(workdir, checkpoint)
    if dataset == network.run["config"]["dataset"]:
        dataset = None
    studies = _load_studies(network, dataset, paths or DataPaths(**network.run["paths"]))
    leak_check = _check_leaks(network, studies)
    part = "test" if dataset else split
    start = time.perf_counter()
    predictions = predict(network, studies, studies.parts[part])
    if not hosts.is_first():
        return
    context = _context(network, studies, part, checkpoint, time.perf_counter() - start) | {"leak_check": leak_check}
    records = {studies.study_ids[row]: row for row in studies.parts[part]}
    shown = {name: studies.records[records[name]] for name in judge.montage_studies(predictions)}
    directory = network.workdir / "evaluations" / f"{studies.dataset}-{part}-{checkpoint}".replace("/", "_")
    curves = network.workdir / "curves.png"
    result = judge.write_evaluation(
        directory,
        predictions,
        context,
        {name: (record["volume"], record["spacing_mm"]) for name, record in shown.items()},
        curves=curves,
    )
    print(f"{studies.dataset}, {part}: checkpoint {checkpoint} (step {network.step}) of {workdir}")
    print(judge.print_table(result))
    print(f"\nReport:          {directory / 'report.html'}")
    print(f"Predictions:     {directory / 'predictions.csv'}")
    print(f"Learning curves: {curves}")


def _load_studies(network: Trained, dataset: str | None, paths: DataPaths) -> Studies:
    """Load the run's own data set, or another as an external test; raises UserError where they do not fit the run."""
    data = network.run["data"]
    studies = load_studies(network.experiment.config, paths, dataset=dataset, label_names=data["label_names"])
    if list(studies.volume_shape) != data["volume_shape"]:
        raise UserError(
            f"--dataset={studies.dataset} has volumes of {studies.volume_shape}, the run was trained on "
            f"{tuple(data['volume_shape'])}: choose a configuration of that grid"
        )
    if not dataset and studies.split_hash != data["split_hash"]:
        raise UserError(
            f"--data_dir={paths.data_dir} holds other studies of {studies.dataset} than the run was trained on; "
            "its parts are not the run's: use the --data_dir of the training"
        )
    return studies


def _check_leaks(network: Trained, studies: Studies) -> str:
    """Check that no study that judges has made the network; tells what was compared, or raises UserError."""
    trained_on = network.run["data"]["dataset"]
    tested = studies.marks.take(studies.parts["test"])
    known = leaks.read(network.workdir)
    against_run = leaks.check_tested(known, tested, trained_on=trained_on, dataset=studies.dataset)
    if studies.dataset != trained_on:
        return against_run
    return leaks.check_parts(studies.marks, studies.parts, studies.dataset)


def predict(network: Trained, studies: Studies, rows: np.ndarray) -> judge.Predictions:
    """Predict each of some studies once.

    Args:
      network: what predicts.
      studies: the data set.
      rows: which of its records.
    """
    logits = network.experiment.predictor()(network.variables, lambda row: studies.records[int(row)], rows)
    return judge.Predictions(
        study_id=[studies.study_ids[row] for row in rows],
        category=[studies.categories[row] for row in rows],
        label=studies.labels.values[rows],
        probability=np.asarray(tasks.probabilities(network.experiment.config.task, logits)),
        label_names=studies.labels.names,
        task=network.experiment.config.task,
    )


def _context(network: Trained, studies: Studies, part: str, checkpoint: str, seconds: float) -> dict[str, Any]:
    """Tell a report what it must know besides the predictions."""
    run, trained_on = network.run, network.experiment.config.dataset
    external = studies.dataset != trained_on
    which = f"--dataset={studies.dataset}" if external else f"--split={part}"
    return {
        "config": run["config"],
        "workdir": str(network.workdir),
        "dataset": studies.dataset,
        "fingerprint": studies.fingerprint,
        "split_hash": studies.split_hash,
        "part": part,
        "external": external,
        "is_phantom": any(name.startswith("ct_phantom/") for name in (trained_on, studies.dataset)),
        "counts": {name: studies.counts(name) for name in studies.parts},
        "skipped": studies.skipped,
        "checkpoint": network.step,
        "checkpoint_choice": checkpoint,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(network.variables)),
        "versions": {"covidscan": run["code_version"], **run["package_versions"]},
        "seconds": {"inference": seconds},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commands": [
            f"python -m covidscan.evaluate --workdir={network.workdir} --checkpoint={checkpoint} {which}",
        ],
    }
