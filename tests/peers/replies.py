"""Main loop of a system's own process: replies in JSON to requests for timings, or reports its training."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

WINDOW_HU = (-1000, 400)  # of the original CovidScan and the Keras example
CORES = len(os.sched_getaffinity(0))


def open_output() -> TextIO:
    """Reserve standard output for replies; redirect what libraries print there to standard error."""
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return output


def settings() -> tuple[str, dict[str, Any]]:
    """Read the command line: a task, and its settings as JSON."""
    return sys.argv[1], json.loads(sys.argv[2])


def reply_with_timings(output: TextIO, tasks: dict[str, Callable[[], Any]]) -> None:
    """Run each task once, so that it is compiled; then reply to each request with the median seconds of a call.

    A request is {"task": name, "seconds": least duration of all calls, of which there are two or more}. Between
    requests the process sleeps.
    """
    for task in tasks.values():
        task()
    print(json.dumps({"ready": True}), file=output)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"seconds": _median_seconds(tasks[request["task"]], request["seconds"])}), file=output)


def _median_seconds(task: Callable[[], Any], at_least: float) -> float:
    task()  # refill the caches, which hold the data of other systems
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < at_least:
        start = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def synthetic_batch(shape: tuple[int, int, int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate the same batch in each system: HU (batch, slice, row, column), int16, and labels (batch,), int32."""
    generator = np.random.default_rng(0)
    hu = generator.integers(-1024, 600, (batch_size, *shape), dtype=np.int16)
    return hu, (np.arange(batch_size) % 2).astype(np.int32)


def windowed(hu: np.ndarray) -> np.ndarray:
    """Apply the window to HU of any shape: float32 in [0, 1]."""
    low, high = WINDOW_HU
    return (np.clip(hu, low, high).astype(np.float32) - low) / (high - low)


def load_records(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Load exported records: windowed volumes (study, slice, row, column), float32, and labels (study,), int32."""
    return windowed(np.load(Path(folder, f"{part}_volumes.npy"))), np.load(Path(folder, f"{part}_labels.npy"))


def report_aurocs(output: TextIO, scores: Iterator[np.ndarray], labels: np.ndarray) -> None:
    """Report the AUROC of each epoch's scores (study,), until they end or the process is stopped.

    Args:
      output: the stream of replies.
      scores: of each epoch; higher for label 1.
      labels: 0 or 1 of each study.
    """
    from sklearn.metrics import roc_auc_score

    for score in scores:
        print(json.dumps({"auroc": float(roc_auc_score(labels, score))}), file=output)
