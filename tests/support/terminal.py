"""A terminal of 80 columns, and what it shows after a program has written to it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from typing import Any

ROWS, COLUMNS = 24, 80


def run_on_terminal(line: Sequence[Any], **options: Any) -> tuple[int, str]:
    """Run a command whose stdout and stderr are a terminal; returns its exit status and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, **options) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # as Linux ends the output of a terminal that nobody holds any more
                break
            if not part:
                break
            written += part
    os.close(ours)
    return process.returncode, written.decode()


def shown_lines(written: str) -> list[str]:
    """Return the lines that a terminal shows: a carriage return goes back, what follows replaces what was there."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines
