"""Reads and prepares the studies of a user in worker processes, so that none can hurt the others."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfds_mosmed.preprocessing.appearance import ScanStatistics, scan_statistics
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.preprocessing.prepare import Prepared, prepare
from tfds_mosmed.scans.find import Found
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import NotHounsfieldError, Scan, ScanError
from tfds_mosmed.workers import Failure, bytes_on_disk, isolated_map, seconds_to_read

IN_FLIGHT = 16  # readings a worker: they are read on while the model is loaded
SCANS_IN_FLIGHT = 2
LEAST_SECONDS = 8.0


class Reading(NamedTuple):
    """A study as read.

    Attributes:
      name: what outputs call it.
      prepared: the study on the grid, with all warnings.
      appearance: how it looks to a network.
      seconds: that reading and preparing took.
      scan: the study itself, where it was asked for.
    """

    name: str
    prepared: Prepared
    appearance: ScanStatistics
    seconds: float
    scan: Scan | None


class Refusal(NamedTuple):
    """A study that cannot be used.

    Attributes:
      name: what outputs call it.
      reason: one line that says what is wrong with it and how to mend it.
      is_hounsfield: False where its values are not HU.
      seconds: that finding out took.
    """

    name: str
    reason: str
    is_hounsfield: bool
    seconds: float


def prepare_scan(name: str, scan: Scan, grid: Grid, started: float, with_scan: bool = False) -> Reading:
    """Bring a study that was read to a grid, and look at it.

    Args:
      name: what outputs call it.
      scan: the study.
      grid: where to.
      started: when reading it began, by `time.perf_counter`.
      with_scan: whether to give the study itself too.
    """
    prepared = prepare(scan, grid)
    look = scan_statistics(prepared.volume, prepared.spacing_mm, scan.spacing_mm)
    seconds = time.perf_counter() - started
    return Reading(name, prepared, look, seconds, scan if with_scan else None)


def read_prepared(found: Found, grid: Grid, with_scan: bool = False) -> Reading | Refusal:
    """Read a study and bring it to a grid.

    Args:
      found: what to read.
      grid: where to.
      with_scan: whether to give the study itself too; it may take hundreds of MB.
    """
    started = time.perf_counter()
    try:
        return prepare_scan(found.name, read_scan(found.path, found.name, first_with_lungs), grid, started, with_scan)
    except ScanError as error:
        hounsfield = not isinstance(error, NotHounsfieldError)
        return Refusal(found.name, one_line(str(error)), hounsfield, time.perf_counter() - started)


@contextlib.contextmanager
def readings(
    studies: Sequence[Found], grid: Grid, workers: int, with_scan: bool = False
) -> Iterator[Iterator[Reading | Refusal]]:
    """Read studies in worker processes, from the moment that the context is entered; see `read_prepared`.

    Args:
      studies: what to read.
      grid: where to.
      workers: processes.
      with_scan: whether to give the studies themselves too. At most two of them a worker are held.

    Yields:
      What became of the studies, in their order. One that crashes, hangs or takes all memory is refused like any other.
    """
    read = functools.partial(read_prepared, grid=grid, with_scan=with_scan)
    workers = min(workers, max(1, len(studies)))
    in_flight = SCANS_IN_FLIGHT if with_scan else IN_FLIGHT
    with isolated_map(read, studies, time_limit, workers, in_flight=in_flight) as results:
        yield (
            Refusal(found.name, one_line(f"{found.name}: {result.reason}"), True, result.seconds)
            if isinstance(result, Failure)
            else result
            for found, result in zip(studies, results, strict=True)
        )


def time_limit(found: Found) -> float:
    """Return the seconds that reading a study may take."""
    return seconds_to_read(bytes_on_disk(found.path), LEAST_SECONDS)


def one_line(message: str) -> str:
    """Put a message on one line, whatever is in the names that it tells."""
    return " ".join(message.split())
