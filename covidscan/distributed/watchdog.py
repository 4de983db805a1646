"""Watchdog of a job of several processes: it ends this process where it hangs, or waits for others in vain.

Heartbeats show that a process is gone. One whose main thread hangs goes on sending them.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from covidscan.distributed.exits import LostProcess


class Watchdog:
    """A thread that ends this process with one line and the status of `LostProcess`.

    Args:
      seconds: for which something that is expected may take; None: nothing is watched.
      flag: with which the user sets these seconds.
    """

    def __init__(self, seconds: float | None, flag: str | None = None):
        self._seconds, self._flag = seconds, flag
        self._deadline, self._line = float("inf"), ""
        if seconds is not None:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def expect(self, event: str, remedy: str) -> None:
        """Expect an event from now on, in the place of what was expected before.

        Args:
          event: which did not happen, as the line says.
          remedy: what the user can do.
        """
        if self._seconds is not None:
            longer = f", or give a longer --{self._flag}" if self._flag else ""
            self._line = f"{event} within {self._seconds} s: {remedy}{longer}"
            self._deadline = time.monotonic() + self._seconds

    def went_on(self) -> None:
        """Expect the same event anew: a part of it has happened."""
        if self._seconds is not None and self._deadline < float("inf"):
            self._deadline = time.monotonic() + self._seconds

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Expect nothing as long as the body lasts, and then the same event anew."""
        was_resting, self._deadline = self._deadline == float("inf"), float("inf")
        try:
            yield
        finally:
            if not was_resting and self._seconds is not None:
                self._deadline = time.monotonic() + self._seconds

    def rest(self) -> None:
        """Expect nothing."""
        self._deadline = float("inf")

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(0.2)
        end(self._line)


def end(line: str) -> NoReturn:
    """End this process, whatever its threads do, with one line and the status of `LostProcess`."""
    os.write(2, f"{line}\n".encode())
    os._exit(LostProcess.status)


UNWATCHED = Watchdog(None)
_current = UNWATCHED


def current() -> Watchdog:
    """Return the watchdog of this process; `UNWATCHED` where it is alone."""
    return _current


@contextlib.contextmanager
def watched_by(watchdog: Watchdog) -> Iterator[None]:
    """Make a watchdog the `current` one, as long as the body lasts."""
    global _current
    _current = watchdog
    try:
        yield
    finally:
        watchdog.rest()
        _current = UNWATCHED
