"""Asking a run to stop: SIGTERM from a cluster, a file from a person. All processes stop at the same step."""

import os
import signal
import time

from etils import epath
from jax.experimental import multihost_utils

from covidscan.distributed import processes
from tfds_mosmed import storage

STOP_FILE = "stop"
CHECK_EVERY_S = 1.0
CHECK_REMOTE_EVERY_S = 10.0  # each is a request or two, for which the training waits


class StopRequests:
    """Listens while a run trains; a context manager.

    Between several processes JAX's preemption service carries a SIGTERM that any of them got to all, and agrees on
    the step at which they stop. `WORKDIR/stop` is a SIGTERM that process 0 sends to itself, and is removed by it.

    Args:
      workdir: the run, or the cross-validation.
      several: whether the job has several processes.
    """

    def __init__(self, workdir: epath.PathLike, *, several: bool):
        self._file = epath.Path(workdir) / STOP_FILE
        self._check_every_s = CHECK_REMOTE_EVERY_S if storage.is_remote(workdir) else CHECK_EVERY_S
        self._several = several
        self._asked = False
        self._asks = 0
        self._checked = 0.0

    def __enter__(self) -> "StopRequests":
        if not self._several:  # otherwise the service has its own handler, which this one would replace
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._several:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, *_: object) -> None:
        self._asked = True

    def reached(self) -> bool:
        """Tell whether to stop now; every process calls it as often, whenever it could stop."""
        now = time.monotonic()
        if processes.is_first() and now - self._checked > self._check_every_s:
            self._checked = now
            if self._file.exists():
                self._file.unlink()
                os.kill(os.getpid(), signal.SIGTERM)
        self._asks += 1  # the service counts steps, and wants them without a gap
        return multihost_utils.reached_preemption_sync_point(self._asks) if self._several else self._asked
