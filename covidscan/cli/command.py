"""Frame of every command: parsing of flags, one line for an error of the user, exit status."""

import errno
import gc
import io
import logging as stdlib_logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from absl import app, flags, logging

from covidscan.cli import flagfiles, help
from covidscan.cli.ctrl_c import CtrlC
from covidscan.distributed import compiler_arguments
from covidscan.distributed.exits import STOPPED, RunAgain
from tfds_mosmed.errors import UserError, did_you_mean, one_line, visible
from tfds_mosmed.progress import clear_bars

# What Ctrl-C leaves, by command.
_STOPPED = {
    "train": STOPPED,
    "build": "stopped before the records were complete; run the same command again to build them",
    "export": "stopped before the model was complete; run the same command again to export it",
    "predict": "stopped; the rows written so far are complete, and with --output_dir the same command continues",
    "benchmark": "stopped; nothing was written",
    "": "stopped before the end; run the same command again",
}

_OUT_OF_MEMORY = (
    "the device has too little memory: use a lower --batch_size, a smaller --size or grid, or in training --cache=host"
)

# Messages of absl, and what is printed instead.
_REWORDED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^flag (--)", r"\1"),
    (r"^Unknown command line flag '(\w+)'", r"--\1: there is no such flag"),
    (r"Did you mean: (.*) \?$", lambda match: "Did you mean --" + match[1].replace(", ", " or --") + "?"),
    (r"\('Non-boolean argument to boolean flag', .*\)$", "it is neither true nor false"),
    (r"invalid literal for int\(\).*$", "it is not a whole number"),
    (r"could not convert string to float.*$", "it is not a number"),
    (r"^Missing value for flag (--\w+)$", r"\1: give a value, as in \1=VALUE"),
    (r"=(.*): value should be one of <(.*)>$", lambda match: f"={match[1]}: {_choices(match[1], match[2].split('|'))}"),
)


def _choices(given: str, choices: list[str]) -> str:
    return f"give one of {', '.join(choices)}.{did_you_mean(given, choices)}"


class _Usage(NamedTuple):
    """Requirements of a command.

    Attributes:
      needs: names of flags; alternatives are joined by "|".
      takes: the positional arguments as they are typed, such as "RUN RUN …", at least two; None: there are none.
    """

    needs: Sequence[str]
    takes: str | None

    def required(self) -> list[str]:
        """Return what must be given, as it is typed."""
        needs = [" or ".join(f"--{name}" for name in each.split("|")) for each in self.needs]
        return [*needs, self.takes] if self.takes else needs

    def _check_arguments(self, arguments: Sequence[str]) -> bool:
        """Return whether there are enough positional arguments; raises flags.Error where there are too many."""
        names = (self.takes or "").split()
        if "…" not in names and len(arguments) > len(names):
            extra = arguments[len(names)]
            if self.takes is None:
                raise flags.Error(f"{extra!r} is not a flag: flags begin with --")
            raise flags.Error(f"{extra!r} is one too many: give one {self.takes} at a time")
        return len(arguments) >= len([name for name in names if name != "…"])

    def parse(self, argv: list[str]) -> list[str]:
        """Parse the flags, or end the process: after --help with 0, else with one line and 2."""
        if help.HELP_FLAGS & set(argv[1 : argv.index("--") if "--" in argv else None]):
            self._print_help()
            sys.exit(0)
        try:
            arguments = flags.FLAGS([argv[0], *flagfiles.expand(argv[1:])])
            enough = self._check_arguments(arguments[1:])
            given = [any(flags.FLAGS[name].value for name in each.split("|")) for each in self.needs]
            given += [enough] if self.takes else []
            if missing := [each for each, there in zip(self.required(), given, strict=True) if not there]:
                raise flags.Error(f"give {' and '.join(missing)}, as in: {_example()}")
        except flags.Error as error:
            print(_as_typed(f"error: {_reworded(error)} (--help lists the flags)"), file=sys.stderr)
            sys.exit(2)
        return arguments

    def _print_help(self) -> None:
        defined = [flag.name for flag in flags.FLAGS.flags_by_module_dict().get("covidscan.cli.flags", [])]
        columns = shutil.get_terminal_size().columns
        try:
            text = help.text(sys.modules["__main__"].__doc__ or "", defined, ", ".join(self.required()), columns)
            print(_as_typed(text), flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would fail again at the end
            if not isinstance(error, BrokenPipeError):  # as of a reader such as head
                print(f"error: {_one_line(error)}", file=sys.stderr)
                sys.exit(1)


def _reworded(error: flags.Error) -> str:
    """Return an error of absl in one line, in plain words and with each flag as it is typed."""
    text = one_line(error)
    for pattern, words in _REWORDED:
        text = re.sub(pattern, words, text)
    return text


def _example() -> str:
    """Return the first command line in the docstring of the command."""
    lines = (sys.modules["__main__"].__doc__ or "").splitlines()
    return next((line.strip() for line in lines if line.strip().startswith("python -m")), sys.argv[0])


def _as_typed(text: str) -> str:
    """Return a text with the console command in its command lines, where that was typed.

    The Python of the console command need not be on the PATH.
    """
    is_console = len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).name == "covidscan"
    return text.replace("python -m covidscan.", "covidscan ") if is_console else text


class _Terminal:
    """An output stream whose text controls no terminal: names of files, studies and labels may hold escape sequences.

    A progress bar is cleared before text is written beside it.

    Args:
      stream: to which the text is written; all else is its own.
    """

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream.isatty():
            clear_bars()
        return self._stream.write(visible(_as_typed(text)))


class _Formatter(logging.PythonFormatter):
    """Format of a log line whose message is in one line, without control characters, where no progress bar is."""

    def format(self, record: stdlib_logging.LogRecord) -> str:
        clear_bars()
        return f"{record.levelname.lower()}: {stdlib_logging.Formatter.format(self, record)}"

    def formatMessage(self, record: stdlib_logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _as_typed(one_line(super().formatMessage(record)))


def _is_for_users(record: stdlib_logging.LogRecord) -> bool:
    """Return whether to show a log record; failures of Orbax and gcsfs are raised as exceptions too."""
    return "orbax" not in record.pathname and record.name not in ("asyncio", "concurrent.futures", "gcsfs")


def _unraisable_hook(unraisable: Any) -> None:
    """Hide what TensorStore prints hundreds of times about failed writes, which are raised as exceptions too."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _one_line(error: Exception) -> str:
    """Return an error in one line, with a remedy where it is known."""
    remedies = {
        errno.ENOENT: "put it back from a copy, or run the command that wrote it again",
        errno.EISDIR: "a folder is where a file belongs: move it away",
        errno.EEXIST: "move it away",
        errno.ELOOP: "a link leads back to itself: remove it",
        errno.EIO: "the disk or file server reports a fault: run the same command again when it is mended",
        errno.ESTALE: "the file server has lost it: run the same command again",
        errno.ENOSPC: "free some space or choose another folder, and run the command again",
        errno.EDQUOT: "free some of your quota or choose another folder, and run the command again",
        errno.EACCES: "give yourself permission, or choose another folder",
        errno.EROFS: "choose a writable folder",
        errno.ENOTDIR: "a part of the path is a file: choose another folder",
    }
    if isinstance(error, OSError) and error.errno and error.strerror:
        remedy = remedies.get(error.errno, "see that disk and file server are in order, and run the same command again")
        return one_line(f"{error.filename or 'disk'}: {error.strerror}: {remedy}")
    return _as_typed(one_line(error))


def run(
    main: Callable[..., int | None], takes: str | None = None, *, needs: Sequence[str] = (), threads: int = 16
) -> None:
    """Run a command.

    Args:
      main: returns the exit status; None is 0.
      takes: the positional arguments, which `main` gets as a list, as they are typed: "PATH …" is one or more, "PATH"
        one; None: the command takes only flags.
      needs: names of the flags that must be given; alternatives are joined by "|".
      threads: of the network on CPUs. The collectives of several CPU devices wait for each other in one pool of
        threads: with fewer threads than devices they would deadlock.

    A UserError or an OSError (a full disk, no right to write) ends it with one line and status 1; `-v=1` shows
    where it came from. RunAgain ends it with its own status, Ctrl-C with 130.
    """
    ctrl_c = CtrlC(_STOPPED.get(Path(sys.argv[0]).stem, _STOPPED[""]))

    def exit_now(message: str, status: int) -> NoReturn:
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
        ctrl_c.exit(message, status)

    def guarded(argv: list[str]) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names need not be valid UTF-8; in a file that stderr goes to as well, lines are to be in their order.
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
            sys.stdout = _Terminal(sys.stdout)  # type: ignore[assignment]
        logging.get_absl_handler().setFormatter(_Formatter())
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_handler().addFilter(_is_for_users)
            sys.unraisablehook = _unraisable_hook
        compiler_arguments.set_arguments()
        try:
            status = main(*([] if takes is None else [argv[1:]])) or 0
            gc.freeze()  # the garbage collection at exit would take half a second
            return status
        except flags.Error as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            os._exit(128 + 13)  # the reader of stdout is gone: the status of SIGPIPE
        except (UserError, OSError) as error:
            if logging.get_verbosity() >= logging.DEBUG:
                raise
            exit_now(f"error: {_one_line(error)}", 1)
        except RunAgain as reason:
            exit_now(_one_line(reason), reason.status)
        except RuntimeError as error:  # JAX's own type, which only a command that imported JAX could name
            if "RESOURCE_EXHAUSTED" not in str(error) or logging.get_verbosity() >= logging.DEBUG:
                raise
            exit_now(f"error: {_one_line(error)}; {_OUT_OF_MEMORY}", 1)

    os.environ.setdefault("NPROC", str(threads))  # JAX reads it when it is imported
    # Imports and traces create many permanent objects; collecting garbage among them takes a tenth of the start.
    gc.set_threshold(20_000, 50, 1000)
    app.run(guarded, flags_parser=_Usage(needs, takes).parse)
