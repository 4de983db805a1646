"""Commands in the process of the tests: flags, frame and exit status are the real ones."""

import contextlib
import io
import runpy
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

from absl import flags, logging

from covidscan.cli import command as frame


class _NoCtrlC:
    """In the place of `CtrlC`: no thread, and an end that the caller survives."""

    def __init__(self, line: str):
        self.line = line

    def exit(self, line: str, status: int) -> None:
        print(line, file=sys.stderr)
        sys.exit(status)


def run(name: str, *given: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m covidscan.NAME` to its end. An exception that the frame does not handle is raised."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)
        for errors in ("strict", "backslashreplace")  # as Python's own
    )
    argv = [f"{name}.py", *given]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _logging_to(err),
        _no_flags(),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(frame, "CtrlC", _NoCtrlC),
        mock.patch.object(frame.app, "run", lambda main, flags_parser: sys.exit(main(flags_parser(argv)))),
    ):
        try:
            runpy.run_module(f"covidscan.{name}", run_name="__main__")
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(argv, status, *texts)


@contextlib.contextmanager
def _logging_to(stream: io.TextIOWrapper) -> Iterator[None]:
    handler = logging.get_absl_handler()
    before = handler.python_handler.stream
    handler.python_handler.stream = stream
    try:
        yield
    finally:
        handler.python_handler.stream = before


@contextlib.contextmanager
def _no_flags() -> Iterator[None]:
    """Leave the flags of one command to this body: those of two commands differ under one name."""
    try:
        yield
    finally:
        for flag in list(flags.FLAGS.flags_by_module_dict().get("covidscan.cli.flags", [])):
            delattr(flags.FLAGS, flag.name)
