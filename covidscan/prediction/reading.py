"""Reading and preparation of studies in worker processes, in which a broken study cannot harm the others."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfds_mosmed.errors import one_line
from tfds_mosmed.preprocessing.appearance import ScanStatistics, scan_statistics
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.preprocessing.prepare import Prepared, prepare
from tfds_mosmed.scans.find import Found
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import NotHounsfieldError, Scan, ScanError
from tfds_mosmed.workers import BYTES_PER_SECOND, Failure, bytes_on_disk, isolated_map

IN_FLIGHT = 16  # readings per worker: they are read ahead while the model is loaded
SCANS_IN_FLIGHT = 2
MIN_SECONDS = 8.0


class Reading(NamedTuple):
    """Study that was read and prepared.

    Attributes:
      name: in the output.
      prepared: the study on the grid, with all warnings.
      statistics: of the prepared study, for comparison with the training studies.
      seconds: duration of reading and preparing.
      scan: the study itself, or None if it was not requested.
    """

    name: str
    prepared: Prepared
    statistics: ScanStatistics
    seconds: float
    scan: Scan | None


class Refusal(NamedTuple):
    """Study that cannot be used.

    Attributes:
      name: in the output.
      reason: one line with cause and remedy.
      is_hounsfield: False if its values are not HU.
      seconds: time until it failed.
    """

    name: str
    reason: str
    is_hounsfield: bool
    seconds: float


def prepare_scan(name: str, scan: Scan, grid: Grid, started: float, with_scan: bool = False) -> Reading:
    """Prepare a scan on a grid, and compute its statistics.

    Args:
      name: in the output.
      scan: the study.
      grid: of the prepared study.
      started: `time.perf_counter` before it was read.
      with_scan: whether to keep the scan too.
    """
    prepared = prepare(scan, grid)
    statistics = scan_statistics(prepared.volume, prepared.spacing_mm, scan.spacing_mm)
    seconds = time.perf_counter() - started
    return Reading(name, prepared, statistics, seconds, scan if with_scan else None)


def read_prepared(found: Found, grid: Grid, with_scan: bool = False) -> Reading | Refusal:
    """Read a study and prepare it on a grid.

    Args:
      found: the study.
      grid: of the prepared study.
      with_scan: whether to keep the scan too, which may take hundreds of MB.
    """
    started = time.perf_counter()
    try:
        return prepare_scan(found.name, read_scan(found.path, found.name, first_with_lungs), grid, started, with_scan)
    except ScanError as error:
        hounsfield = not isinstance(error, NotHounsfieldError)
        return Refusal(found.name, one_line(error), hounsfield, time.perf_counter() - started)


@contextlib.contextmanager
def readings(
    studies: Sequence[Found], grid: Grid, workers: int, with_scan: bool = False
) -> Iterator[Iterator[Reading | Refusal]]:
    """Read studies in worker processes, starting when the context is entered; see `read_prepared`.

    Args:
      studies: the studies.
      grid: of the prepared studies.
      workers: number of processes.
      with_scan: whether to keep the scans too; at most two per worker are held.

    Yields:
      An iterator over the outcomes in the order of the studies. One that crashes its process, hangs or takes too much
      memory is a Refusal too.
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
    return max(MIN_SECONDS, bytes_on_disk(found.path) / BYTES_PER_SECOND)
