"""What runs in a system's own process: it times what it is asked for, or tells how its training goes, in JSON."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

WINDOW_HU = (-1000, 400)  # CovidScan's and the Keras example's
CORES = len(os.sched_getaffinity(0))


def open_answers() -> TextIO:
    """Take standard output for the answers; what libraries print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def settings() -> tuple[str, dict[str, Any]]:
    """Read the command line: what to do, and how, as JSON."""
    return sys.argv[1], json.loads(sys.argv[2])


def answer_timings(answers: TextIO, tasks: dict[str, Callable[[], Any]]) -> None:
    """Run each task once, so that it is compiled; then for each request tell the median seconds of a call.

    A request is {"task": name, "seconds": at least so long, and two calls}. Between requests the process sleeps.
    """
    for task in tasks.values():
        task()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"seconds": _median_seconds(tasks[request["task"]], request["seconds"])}), file=answers)


def _median_seconds(task: Callable[[], Any], at_least: float) -> float:
    task()  # other systems ran meanwhile: caches hold their data
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < at_least:
        start = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def made_up_batch(shape: tuple[int, int, int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch, the same in each system: HU (batch, slice, row, column), int16, and labels (batch,), int32."""
    generator = np.random.default_rng(0)
    hu = generator.integers(-1024, 600, (batch_size, *shape), dtype=np.int16)
    return hu, (np.arange(batch_size) % 2).astype(np.int32)


def windowed(hu: np.ndarray) -> np.ndarray:
    """Show HU (…) through the window: float32 in [0, 1]."""
    low, high = WINDOW_HU
    return (np.clip(hu, low, high).astype(np.float32) - low) / (high - low)


def load_records(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Load exported records: windowed volumes (study, slice, row, column), float32, and labels (study,), int32."""
    return windowed(np.load(Path(folder, f"{part}_volumes.npy"))), np.load(Path(folder, f"{part}_labels.npy"))


def tell_aurocs(answers: TextIO, scores: Iterator[np.ndarray], labels: np.ndarray) -> None:
    """Tell the AUROC of each epoch's scores (study,), higher for label 1, until they end or the process is stopped."""
    from sklearn.metrics import roc_auc_score

    for score in scores:
        print(json.dumps({"auroc": float(roc_auc_score(labels, score))}), file=answers)
