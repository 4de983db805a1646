"""Studies -> outcomes, on all cores. What happens to one study is the same function here and in a Beam pipeline."""

import collections
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tfds_mosmed.building.index import index_row
from tfds_mosmed.building.study import Study
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.scan import ScanError

IN_FLIGHT_PER_WORKER = 8  # so that no worker waits for one that has a large study
T = TypeVar("T")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class PreparedStudy(NamedTuple):
    """What became of a study: a record, or the reason why it cannot be one.

    Attributes:
      study_id: the study.
      record: the fields of its record, or None.
      row: its row of the index, or None.
      error: one line that names the file and the remedy, or None.
    """

    study_id: str
    record: dict[str, Any] | None
    row: dict[str, Any] | None
    error: str | None


class Preparation(NamedTuple):
    """How studies become records; goes to other processes and machines.

    Attributes:
      grid: where to.
      with_mask: whether a record has a lesion mask, all 0 where the study has none.
      folds: study id -> fold.
    """

    grid: Grid
    with_mask: bool
    folds: dict[str, int]

    def of(self, study: Study) -> PreparedStudy:
        """Read a study and bring it to the grid."""
        return prepare_study(study, self.folds[study.study_id], self.grid, self.with_mask)


def prepare_study(study: Study, fold: int, grid: Grid, with_mask: bool) -> PreparedStudy:
    """Read a study and bring it to the grid; see `Preparation`."""
    try:
        scan, lesion_mask, warnings = study.load()
        prepared = prepare(scan, grid, lesion_mask)
    except ScanError as error:
        return PreparedStudy(study.study_id, None, None, " ".join(str(error).split()))
    except Exception as error:
        error.add_note(f"while {study.study_id} was prepared")
        raise
    record = {
        "study_id": study.study_id,
        "category": study.category,
        "fold": fold,
        "volume": prepared.volume,
        "spacing_mm": np.array(prepared.spacing_mm, np.float32),
        "source_shape": np.array(scan.hu.shape, np.int32),
        "source_spacing_mm": np.array(scan.spacing_mm, np.float32),
        "source_box": np.array([[part.start, part.stop] for part in prepared.box], np.int32),
        "lungs_found": prepared.lungs_found,
        "has_lesion_mask": lesion_mask is not None,
        "voxels_sha256": scan.voxels_sha256(),
        "signature": signature.to_text(signature.signature(scan.hu, scan.spacing_mm)),
    }
    if with_mask:
        empty = np.zeros(grid.shape, np.uint8)
        record["lesion_mask"] = empty if prepared.lesion_mask is None else prepared.lesion_mask
    return PreparedStudy(study.study_id, record, index_row(record, (*warnings, *prepared.warnings)), None)


def prepare_studies(studies: Sequence[Study], preparation: Preparation, workers: int | None) -> Iterator[PreparedStudy]:
    """Prepare studies in order, a few ahead on each core.

    Args:
      studies: what to read.
      preparation: how.
      workers: processes; None for as many as this process may use cores, 1 for none but this one.

    Yields:
      The outcomes, in the order of the studies. A worker holds one study at a time, and at
      most eight outcomes a worker are in work or wait.

    Raises:
      UserError: if a worker is killed, as happens where memory is short.
    """
    import loky  # its workers do not import the main program again, and with it JAX

    workers = min(workers or loky.cpu_count(), len(studies))
    if workers <= 1:
        yield from map(preparation.of, studies)
        return
    pool = loky.ProcessPoolExecutor(workers, env=ONE_THREAD, initializer=end_with_parent, initargs=(os.getpid(),))
    pending: collections.deque = collections.deque()
    try:
        for study in studies:
            if len(pending) >= IN_FLIGHT_PER_WORKER * workers:
                yield pending.popleft().result()
            fold = preparation.folds[study.study_id]
            pending.append(pool.submit(prepare_study, study, fold, preparation.grid, preparation.with_mask))
        while pending:
            yield pending.popleft().result()
    except loky.BrokenProcessPool as error:
        raise UserError(
            "a process that prepares studies was killed, as happens where memory is short: "
            f"allow 300 MB for each of {workers}"
        ) from error
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def end_with_parent(parent: int) -> None:
    """End this worker when the process that started it is killed; it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def progress(studies: Iterator[T], total: int, doing: str) -> Iterator[T]:
    """Show on stderr how far studies are."""
    import tqdm

    interval = 0.1 if sys.stderr.isatty() else 15.0  # a log file need not see every study
    return iter(tqdm.tqdm(studies, doing, total, unit=" studies", mininterval=interval, file=sys.stderr))
