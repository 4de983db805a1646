"""Reads and prepares the studies of a user in worker processes, so that none can hurt the others."""

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfds_mosmed.ct_volume import Geometry, Scan, ScanError
from tfds_mosmed.finding import Found
from tfds_mosmed.isolation import Failure, isolated_map
from tfds_mosmed.preprocess import Grid, Prepared, prepare
from tfds_mosmed.scans import read_scan

LEAST_SECONDS = 8.0
BYTES_PER_SECOND = 1.5e6  # JPEG 2000 on a busy machine


class Reading(NamedTuple):
    """A study as read.

    Attributes:
      name: what outputs call it.
      prepared: the study on the grid, with all warnings.
      geometry: where the study lies.
      spacing_mm: of the study's voxels, (slice, row, column).
      seconds: that reading and preparing took.
      scan: the study itself, where it was asked for.
    """

    name: str
    prepared: Prepared
    geometry: Geometry
    spacing_mm: tuple[float, float, float]
    seconds: float
    scan: Scan | None


def read_prepared(found: Found, grid: Grid, with_scan: bool = False) -> Reading | str:
    """Read a study and bring it to a grid.

    Args:
      found: what to read.
      grid: where to.
      with_scan: whether to give the study itself too; it may take hundreds of MB.

    Returns:
      The study, or one line that says what is wrong with it and how to mend it.
    """
    started = time.perf_counter()
    try:
        scan = read_scan(found.path, found.name)
        prepared = prepare(scan, grid)
    except ScanError as error:
        return one_line(str(error))
    seconds = time.perf_counter() - started
    return Reading(found.name, prepared, scan.geometry, scan.spacing_mm, seconds, scan if with_scan else None)


@contextlib.contextmanager
def readings(
    studies: Sequence[Found], grid: Grid, workers: int, with_scan: bool = False
) -> Iterator[Iterator[Reading | str]]:
    """Read studies in worker processes, from the moment that the context is entered; see `read_prepared`.

    Args:
      studies: what to read.
      grid: where to.
      workers: processes.
      with_scan: whether to give the studies themselves too. At most two studies a worker are held.

    Yields:
      What became of the studies, in their order. One that crashes, hangs or takes all memory is a line like any other.
    """
    read = functools.partial(read_prepared, grid=grid, with_scan=with_scan)
    with isolated_map(read, studies, time_limit, min(workers, max(1, len(studies)))) as results:
        yield (
            one_line(f"{found.name}: {result.reason}") if isinstance(result, Failure) else result
            for found, result in zip(studies, results, strict=True)
        )


def time_limit(found: Found) -> float:
    """Seconds that a study may take: what a slow disk and a slow machine need for its size."""
    return max(LEAST_SECONDS, _size(found) / BYTES_PER_SECOND)


def _size(found: Found) -> int:
    total = 0
    try:
        files = os.walk(found.path) if found.path.is_dir() else [("", [], [found.path])]
        for folder, _, names in files:
            total += sum(os.stat(os.path.join(folder, name)).st_size for name in names)
    except OSError:
        pass  # the reader tells it
    return total


def one_line(message: str) -> str:
    """Put a message on one line, whatever is in the names that it tells."""
    return " ".join(message.split())
