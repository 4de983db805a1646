"""What the last steps said: read late, so that the host never waits for the step that it has just sent off."""

import time
from collections import deque
from typing import Any

import jax
import numpy as np

from covidscan.data.feed import IN_FLIGHT, Dispatch
from covidscan.metrics import classification
from covidscan.training.step import StepOutputs


class NotFinite(Exception):  # noqa: N818 - the caller tells of it
    """A step's loss or gradient is not a number.

    Attributes:
      step: steps taken before it.
      suspects: places in the global batch whose prediction is not a number either; empty where all are.
    """

    def __init__(self, step: int, suspects: list[int]):
        super().__init__(step, suspects)
        self.step = step
        self.suspects = suspects


def _step_of(
    stacked: tuple[dict[str, np.ndarray], StepOutputs], place: int
) -> tuple[dict[str, np.ndarray], StepOutputs]:
    return jax.tree.map(lambda values: values[place], stacked)


class StepMetrics:
    """The metrics of the steps since the last line of the log.

    Args:
      task: what is predicted.
      batch_size: of the global batch.
      stop_if_not_finite: raise NotFinite for a step that is not.
    """

    def __init__(self, task: str, batch_size: int, *, stop_if_not_finite: bool):
        self._task, self._batch_size, self._strict = task, batch_size, stop_if_not_finite
        self._in_flight: deque[tuple[int, Dispatch]] = deque()
        self._done: list[tuple[dict[str, np.ndarray], StepOutputs]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out of volumes_per_second what has just been done other than training."""
        self._since, self._timed = time.perf_counter(), 0

    def add(self, step: int, sent: Dispatch) -> None:
        """Remember what was sent off after `step` steps, and look at what was sent before the last."""
        self._in_flight.append((step, sent))
        self._timed += sent.num_steps
        while len(self._in_flight) > IN_FLIGHT:
            self._look_at_oldest()

    def settle(self) -> None:
        """Wait for all steps and look at them: what is saved after this is good."""
        while self._in_flight:
            self._look_at_oldest()

    def _look_at_oldest(self) -> None:
        step, sent = self._in_flight.popleft()
        found = jax.device_get((sent.metrics, sent.outputs))
        each = [_step_of(found, place) for place in range(sent.num_steps)] if sent.stacked else [found]
        for place, (metrics, outputs) in enumerate(each):
            if self._strict and not metrics["finite"]:
                suspects = np.flatnonzero(~np.isfinite(outputs.probability).all(-1)).tolist()
                raise NotFinite(step + place, suspects)
            self._done.append((metrics, outputs))

    def take(self) -> dict[str, Any]:
        """Give the means since the last call, the AUROC of these examples as trained on, and the speed."""
        self.settle()
        finite = [metrics for metrics, _ in self._done if metrics["finite"]]
        names = [name for name in self._done[-1][0] if name != "finite"]
        means = {name: float(np.mean([metrics[name] for metrics in finite])) if finite else None for name in names}
        if "skipped_updates" in means:
            means["skipped_updates"] = int(self._done[-1][0]["skipped_updates"])
        label = np.concatenate([outputs.label for _, outputs in self._done])
        probability = np.concatenate([outputs.probability for _, outputs in self._done])
        auroc = classification.mean_auroc(label, probability, self._task)
        speed = self._timed * self._batch_size / (time.perf_counter() - self._since)
        self._done.clear()
        self.restart_clock()
        return means | {"auroc": auroc, "volumes_per_second": speed}
