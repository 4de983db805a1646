"""Time to a target AUROC; all systems train on the same phantoms and are evaluated on the same others."""

import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from covidscan.config import Config, DataPaths
from covidscan.data.dataset import load_dataset
from covidscan.data.records import read_fields
from tests.peers.processes import ROOT, System, end, end_after
from tfds_mosmed.errors import UserError

TARGETS = (0.95, 0.98)
DATA_DIR = "data"
STUDIES = 200

Evaluations = list[tuple[float, float]]  # (seconds since the process was started, AUROC)


class Entrant(NamedTuple):
    """System that trains.

    Attributes:
      system: its process.
      preparation: code path of `preparation` that makes its records.
      processes: number of processes that prepare in parallel.
    """

    system: System
    preparation: str
    processes: int


def _ours(name: str, lesion_masks: bool) -> Entrant:
    settings = {"data_dir": DATA_DIR, "lesion_masks": lesion_masks}
    system = System(name, "covidscan_system", "learn", settings, peer=False)
    return Entrant(system, "CovidScan, 128x128x32, as a record", 2)


def _peers(records: str) -> list[Entrant]:
    """Return the peers, each with the number of processes in which its published program prepares studies."""

    def entrant(name: str, module: str, network: str, preparation: str, processes: int) -> Entrant:
        return Entrant(System(name, module, "learn", {"network": network, "records": records}), preparation, processes)

    example, monai = "Keras example, 128x128x64", "MONAI, 128x128x32"
    original = "the original CovidScan, 64x64x32"
    return [
        entrant("Keras, the Keras example", "keras_system", "keras_example", example, 1),
        entrant("Keras, the original CovidScan", "keras_system", "covidscan_cnn", original, 1),
        entrant("PyTorch, the Keras example's network", "torch_system", "keras_example", example, 2),
        entrant("MONAI, DenseNet121", "torch_system", "monai_densenet121", monai, 2),
        entrant("MONAI, ResNet-18", "torch_system", "monai_resnet18", monai, 2),
    ]


def export_records(folder: Path) -> None:
    """Write the phantoms' records for the peers: int16 HU (study, slice, row, column) and labels, as .npy files."""
    studies = load_dataset(Config(), DataPaths(str(ROOT / DATA_DIR)))
    held = np.concatenate([studies.parts["validation"], studies.parts["test"]])
    for part, rows in {"train": studies.parts["train"], "held": held}.items():
        np.save(folder / f"{part}_volumes.npy", read_fields(studies.records, rows, ["volume"])["volume"])
        np.save(folder / f"{part}_labels.npy", studies.labels.values[rows])


def reached(evaluations: Sequence[tuple[float, float]], target: float) -> float | None:
    """Return the seconds at which a target was reached: the first of two consecutive evaluations at or above it."""
    for (seconds, auroc), (_, following) in itertools.pairwise(evaluations):
        if auroc >= target and following >= target:
            return seconds
    return None


class Training(NamedTuple):
    """Course of a training.

    Attributes:
      evaluations: of all epochs.
      seconds: from the start of its process to its end.
      finished: whether it ended by itself, before its targets and its time limit.
    """

    evaluations: Evaluations
    seconds: float
    finished: bool


def train(system: System, limit: float | None) -> Training:
    """Train a system until it reaches all targets, ends, or is out of time.

    Args:
      system: the system.
      limit: seconds, or None for as long as it takes.

    Raises:
      UserError: it failed.
    """
    start = time.perf_counter()
    process = system.start()
    timer = end_after(process, limit) if limit is not None else None
    evaluations: Evaluations = []
    finished = False
    assert process.stdout
    try:
        for line in process.stdout:
            evaluations.append((time.perf_counter() - start, json.loads(line)["auroc"]))
            print(f"{system.name}: {evaluations[-1][0]:.0f} s, AUROC {evaluations[-1][1]:.3f}", flush=True)
            if all(reached(evaluations, target) is not None for target in TARGETS):
                break
        else:
            finished = limit is None or time.perf_counter() - start < limit
            if process.wait() and finished:
                raise UserError(f"{system.name} ended with status {process.returncode}: see above")
    finally:
        if timer:
            timer.cancel()
        end(process)
    return Training(evaluations, time.perf_counter() - start, finished)


def _run(entrant: Entrant, limit: float | None, paths: dict[str, Any]) -> dict[str, Any]:
    prepared = paths[entrant.preparation]["median"] * STUDIES / entrant.processes
    training = train(entrant.system, None if limit is None else limit - prepared)
    times = {target: reached(training.evaluations, target) for target in TARGETS}
    return {
        "system": entrant.system.name,
        "preparation": round(prepared, 1),
        "reached": {str(target): at and round(prepared + at, 1) for target, at in times.items()},
        "ended": round(prepared + training.seconds, 1),
        "finished": training.finished,
        "evaluations": [[round(at, 1), round(auroc, 4)] for at, auroc in training.evaluations],
    }


def measure(cap: float, paths: dict[str, Any], before: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Train one system after the other, ours at the start and at the end.

    Args:
      cap: a peer is stopped at this multiple of our own time, preparation included, to the highest target we reached.
      paths: the code paths of the measure of preparation.
      before: last value of an earlier call, which is continued if it was interrupted and had the same cap.

    Yields:
      After each run all runs so far: seconds of preparation and, for each target, the seconds from the preparation of
      the first study to the target, or None and the seconds to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        export_records(Path(folder))
        ours = _ours("CovidScan, default network", lesion_masks=True)
        without_masks = _ours("CovidScan, default network, labels alone", lesion_masks=False)
        entrants = [ours, without_masks, *_peers(folder), ours]
        runs = before["runs"] if before and before["cap"] == cap and len(before["runs"]) < len(entrants) else []
        for entrant in entrants[len(runs) :]:
            limit = None if entrant is ours else cap * max(at for at in runs[0]["reached"].values() if at)
            runs.append(_run(entrant, limit, paths))
            if not any(runs[0]["reached"].values()):
                raise UserError(
                    f"CovidScan reached none of the AUROCs {TARGETS}, so there is nothing to compare with: train longer"
                )
            yield {"cap": cap, "studies": STUDIES, "runs": runs}
