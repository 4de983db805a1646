"""Ctrl-C: it ends a command within seconds and with one line, whatever the command is doing."""

import os
import select
import signal
import sys
import threading
from typing import NoReturn

from tfds_mosmed import early_exit

SAVING_S = 2.5  # for which a handler of SIGINT in the place of this one may save
CLEANING_S = 2.0
STATUS = 128 + signal.SIGINT


class CtrlC:
    """Handler of SIGINT, unless it is ignored, as in a shell's background commands.

    A thread ends the process. KeyboardInterrupt would come late in a compilation, crash native code that calls Python,
    be ignored in destructors, and print what it interrupts.

    Attributes:
      line: printed at the end.
    """

    def __init__(self, line: str):
        self.line = line
        self._lock = threading.Lock()
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
            return
        received, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, _stand_still)
        threading.Thread(target=self._watch, args=[received], name="Ctrl-C", daemon=True).start()

    def _watch(self, received: int) -> None:
        while signal.SIGINT not in os.read(received, 1):
            pass
        if signal.getsignal(signal.SIGINT) is not _stand_still:
            select.select([received], [], [], SAVING_S)  # or until another signal
        self.exit(self.line, STATUS)

    def exit(self, line: str, status: int) -> NoReturn:
        """End the process at once with a line on stderr, and clean up what was begun.

        Threads of libraries would wait for lost processes, crash in the middle of a compilation, or print about a full
        disk.
        """
        self._lock.acquire()  # never released: one thread ends the process
        if _is_bar_open() or (status == STATUS and os.isatty(2)):
            line = f"\n{line}"
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
        limit = threading.Timer(CLEANING_S, os._exit, [status])
        limit.daemon = True
        limit.start()
        early_exit.clean_up_all()
        os._exit(status)


def _stand_still(*_: object) -> None:
    threading.Event().wait()


def _is_bar_open() -> bool:
    """Return whether a progress bar is on the line of the cursor."""
    return "tqdm" in sys.modules and len(sys.modules["tqdm"].tqdm._instances) > 0
