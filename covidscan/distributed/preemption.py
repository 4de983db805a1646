"""Preemption: a run stops at SIGTERM or when a file `stop` appears, all processes at the same step."""

import os
import signal
import time

from etils import epath
from jax.experimental import multihost_utils

from covidscan.distributed import processes
from tfds_mosmed import storage

STOP_FILE = "stop"
CHECK_EVERY_S = 1.0
CHECK_REMOTE_EVERY_S = 10.0  # each check is a request or two, for which the training waits


class StopRequests:
    """Watches for requests to stop while a run trains; a context manager.

    With several processes, JAX's preemption service passes a SIGTERM that any of them received to all, and agrees on
    the step at which they stop. When `WORKDIR/stop` appears, process 0 removes it and sends itself a SIGTERM.

    Args:
      workdir: the run, or the cross-validation.
      several: whether the job has several processes.
    """

    def __init__(self, workdir: epath.PathLike, *, several: bool):
        self._file = epath.Path(workdir) / STOP_FILE
        self._check_every_s = CHECK_REMOTE_EVERY_S if storage.is_remote(workdir) else CHECK_EVERY_S
        self._several = several
        self._requested = False
        self._calls = 0
        self._checked = 0.0

    def __enter__(self) -> "StopRequests":
        if not self._several:  # the service has its own handler, which this one would replace
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._several:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, *_: object) -> None:
        self._requested = True

    def reached(self) -> bool:
        """Return whether to stop now; all processes must call it equally often, wherever they could stop."""
        now = time.monotonic()
        if processes.is_process_0() and now - self._checked > self._check_every_s:
            self._checked = now
            if self._file.exists():
                self._file.unlink()
                os.kill(os.getpid(), signal.SIGTERM)
        self._calls += 1  # the service expects consecutive numbers
        return multihost_utils.reached_preemption_sync_point(self._calls) if self._several else self._requested
