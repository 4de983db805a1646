"""How every command starts and ends: flags in, one line for a mistake that the user can mend, an exit status."""

import errno
import gc
import logging as stdlib_logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging

from covidscan.distributed.exits import RunAgain
from tfds_mosmed.errors import UserError, one_line


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def _is_for_users(record: stdlib_logging.LogRecord) -> bool:
    """Leave out what Orbax and gcsfs tell of their own doings; what goes wrong there comes as an exception too."""
    return "orbax" not in record.pathname and record.name not in ("asyncio", "concurrent.futures", "gcsfs")


def _tell_of_unraisable(unraisable: Any) -> None:
    """Leave out what TensorStore prints, hundreds of times, of writes that failed; they come as an exception too."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _one_line(error: Exception) -> str:
    """Tell an error in one line with its way out."""
    remedies = {
        errno.ENOSPC: "free some space or choose another folder; the same command then goes on",
        errno.EDQUOT: "free some of your quota or choose another folder; the same command then goes on",
        errno.EACCES: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that can be written to",
        errno.ENOTDIR: "a part of that path is a file: choose another folder",
    }
    if isinstance(error, OSError) and error.errno in remedies:
        return f"{error.filename or 'disk'}: {error.strerror}: {remedies[error.errno]}"
    return one_line(error)


def _leave(last_words: str, status: int) -> NoReturn:
    """End the process at once: at exit, libraries' threads would wait for lost processes or tell of a full disk."""
    print(last_words, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


def run(main: Callable[..., int | None], takes: str | None = None, *, threads: int = 16) -> None:
    """Run a command.

    Args:
      main: what it does; what it returns is the exit status, None stands for 0.
      takes: what it takes besides flags, as in "PATH": at least one, which go to `main` as a list; None: nothing.
      threads: of the network on CPUs. The collectives of several CPU devices wait for each other in one pool of
        threads: with fewer threads than devices they would deadlock.

    A UserError or an OSError (a full disk, no right to write) ends it with one line and status 1; `-v=1` shows
    where it came from. RunAgain ends it with status 75 or 76, Ctrl-C with 130.
    """

    def guarded(argv: list[str]) -> int:
        if takes is None and len(argv) > 1:
            print(f"error: {argv[1]!r} is no flag: flags begin with --", file=sys.stderr)
            return 2
        if takes is not None and len(argv) == 1:
            print(f"error: give at least one {takes} (--help lists the flags)", file=sys.stderr)
            return 2
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_handler().addFilter(_is_for_users)
            sys.unraisablehook = _tell_of_unraisable
        try:
            status = main(*([] if takes is None else [argv[1:]])) or 0
            gc.freeze()  # a last look for garbage among all that was imported takes half a second
            return status
        except flags.Error as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            os._exit(128 + 13)  # whoever read the output has left: as SIGPIPE would end it
        except (UserError, OSError) as error:
            if logging.get_verbosity() >= logging.DEBUG:
                raise
            _leave(f"error: {_one_line(error)}", 1)
        except RunAgain as reason:
            _leave(f"{_one_line(reason)}; the same command goes on from the last checkpoint", reason.status)
        except KeyboardInterrupt:
            print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
            return 130

    os.environ.setdefault("NPROC", str(threads))  # JAX reads it when it is imported
    # Imports and traces make many objects that stay: looking for garbage among them takes a tenth of a start.
    gc.set_threshold(20_000, 50, 1000)
    # --help shows the flags of the main module: here, all of ours.
    for flag in flags.FLAGS.flags_by_module_dict().get("covidscan.cli.flags", []):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(guarded, flags_parser=_parse)
