"""Buffer of step metrics, fetched two dispatches late so that the host never blocks on the step just dispatched."""

import time
from collections import deque
from typing import Any

import jax
import numpy as np

from covidscan.data.feed import IN_FLIGHT, Dispatch
from covidscan.metrics.headline import headline
from covidscan.training.step import StepOutputs


class NotFinite(Exception):  # noqa: N818 - the caller turns it into an error message
    """A step's loss or gradient is not a finite number.

    Attributes:
      step: steps taken before it.
      suspects: positions in the global batch of the examples whose prediction is not finite; empty where all are.
    """

    def __init__(self, step: int, suspects: list[int]):
        super().__init__(step, suspects)
        self.step = step
        self.suspects = suspects


class StepMetrics:
    """Metrics of the steps since the last line of the log.

    Args:
      task: one of `labels.TASKS`.
      batch_size: of the global batch.
      stop_if_not_finite: raise NotFinite for a step whose metrics are not finite.
    """

    def __init__(self, task: str, batch_size: int, *, stop_if_not_finite: bool):
        self._headline, self._batch_size = headline(task), batch_size
        self._stop_if_not_finite = stop_if_not_finite
        self._in_flight: deque[tuple[int, Dispatch]] = deque()
        self._done: list[tuple[dict[str, np.ndarray], StepOutputs]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Restart the measurement of volumes_per_second, after something else than training."""
        self._since, self._timed = time.perf_counter(), 0

    def add(self, step: int, dispatch: Dispatch) -> None:
        """Add a dispatch made after `step` steps, and fetch those more than `IN_FLIGHT` before it."""
        self._in_flight.append((step, dispatch))
        self._timed += dispatch.num_steps
        while len(self._in_flight) > IN_FLIGHT:
            self._fetch_oldest()

    def settle(self) -> None:
        """Wait for all steps and check them, before their state is saved."""
        while self._in_flight:
            self._fetch_oldest()

    def _fetch_oldest(self) -> None:
        step, dispatch = self._in_flight.popleft()
        fetched = jax.device_get((dispatch.metrics, dispatch.outputs))
        steps = [fetched]
        if dispatch.stacked:
            steps = [jax.tree.map(lambda values, i=i: values[i], fetched) for i in range(dispatch.num_steps)]
        for i, (metrics, outputs) in enumerate(steps):
            if self._stop_if_not_finite and not metrics["finite"]:
                suspects = np.flatnonzero(~np.isfinite(outputs.probability).all(-1)).tolist()
                raise NotFinite(step + i, suspects)
            self._done.append((metrics, outputs))

    def take(self) -> dict[str, Any]:
        """Return and clear the mean metrics, the headline metric of the training examples, and the volumes per second.

        They are those of `averaged_steps` steps: fewer at the end, and where the run resumed between two lines.
        """
        self.settle()
        finite = [metrics for metrics, _ in self._done if metrics["finite"]]
        names = [name for name in self._done[-1][0] if name != "finite"]
        means = {name: float(np.mean([metrics[name] for metrics in finite])) if finite else None for name in names}
        if "skipped_updates" in means:
            means["skipped_updates"] = int(self._done[-1][0]["skipped_updates"])
        label = np.concatenate([outputs.label for _, outputs in self._done])
        probability = np.concatenate([outputs.probability for _, outputs in self._done])
        value = self._headline.compute(label, probability)
        speed = self._timed * self._batch_size / (time.perf_counter() - self._since)
        self._done.clear()
        self.restart_clock()
        return {"averaged_steps": len(finite)} | means | {self._headline.name: value, "volumes_per_second": speed}
