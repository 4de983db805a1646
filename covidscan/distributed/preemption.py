"""Preemption: a run stops at SIGTERM, Ctrl-C or when a file `stop` appears, all processes at the same step."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental import multihost_utils

from covidscan.distributed import processes
from covidscan.distributed.exits import STOPPED, RunAgain, StoppedByUser
from tfds_mosmed import storage

STOP_FILE = "stop"
CHECK_EVERY_S = 1.0
CHECK_REMOTE_EVERY_S = 10.0  # each check is a request or two, for which the training waits


class StopRequests:
    """Watches for requests to stop as long as a command trains; a context manager.

    Within `deferred` a request waits until `reached` is called. Elsewhere there is nothing to save: SIGTERM ends the
    process there at once, as Ctrl-C does, and the file waits.

    With several processes, JAX's preemption service passes a SIGTERM that any of them received to all, and agrees on
    the step at which they stop. When `WORKDIR/stop` appears, process 0 removes it and sends itself a SIGTERM.

    Args:
      workdir: the run, or the cross-validation.
    """

    def __init__(self, workdir: epath.PathLike):
        self._file = epath.Path(workdir) / STOP_FILE
        self._check_every_s = CHECK_REMOTE_EVERY_S if storage.is_remote(workdir) else CHECK_EVERY_S
        self._several = jax.process_count() > 1
        self._deferred = self._requested = self._by_user = False
        self._calls = 0
        self._checked = 0.0

    def __enter__(self) -> "StopRequests":
        if not self._several:  # the service has its own handler, which this one would replace
            self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._several:
            signal.signal(signal.SIGTERM, self._previous)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let requests wait for `reached` as long as the body lasts."""
        previous = signal.getsignal(signal.SIGINT)
        if previous is not signal.SIG_IGN:  # as in a shell's background commands
            signal.signal(signal.SIGINT, self._on_sigint)
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
            signal.signal(signal.SIGINT, previous)

    def _on_sigterm(self, *_: object) -> None:
        self._requested = True
        if not self._deferred:
            os.write(2, f"{STOPPED}\n".encode())
            os._exit(RunAgain.status)

    def _on_sigint(self, *_: object) -> None:
        # not by print, in the middle of which this may be called
        os.write(2, b"\nCtrl-C: stopping at the next step, and saving; press it again to stop at once\n")
        self._request_by_user()

    def _request_by_user(self) -> None:
        self._by_user = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._requested = True

    def reached(self) -> bool:
        """Return whether to stop now; all processes must call it equally often, wherever they could stop."""
        now = time.monotonic()
        if processes.is_process_0() and now - self._checked > self._check_every_s:
            self._checked = now
            if self._file.exists():
                self._file.unlink()
                self._request_by_user()
        self._calls += 1  # the service expects consecutive numbers
        return multihost_utils.reached_preemption_sync_point(self._calls) if self._several else self._requested

    def exception(self, message: str) -> RunAgain:
        """Return the exception that ends the job, after `reached`; all processes call it.

        Args:
          message: what was done until now.
        """
        kind = StoppedByUser if processes.gather([self._by_user]).any() else RunAgain
        return kind(f"{message}; the same command resumes there")
