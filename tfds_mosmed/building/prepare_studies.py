"""Preparation of studies on all cores; a Beam pipeline applies the same function to each study."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfds_mosmed.building.index import index_row
from tfds_mosmed.building.sources import SourceHashes, hash_sources
from tfds_mosmed.building.study import Study
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.errors import one_line
from tfds_mosmed.preprocessing import signature
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.prepare import prepare
from tfds_mosmed.scans.scan import ScanError
from tfds_mosmed.workers import BYTES_PER_SECOND, Failure, isolated_map

IN_FLIGHT = 8  # studies per worker, so that no worker waits for one that has a large study
MIN_SECONDS = 120.0  # before a study counts as hanging; drawing a phantom, or a slow file server, takes some


class PreparedStudy(NamedTuple):
    """Outcome of preparing a study: a record, or the reason why there is none.

    Attributes:
      study_id: id of the study.
      record: the fields of its record, or None.
      row: its row of the index, or None.
      error: one line that names the file and the remedy, or None.
      sources: hashes of its files, before they were read; None where they were not hashed.
    """

    study_id: str
    record: dict[str, Any] | None
    row: dict[str, Any] | None
    error: str | None
    sources: SourceHashes | None = None


class Preparation(NamedTuple):
    """Function from a study to its record; is sent to other processes and machines.

    Attributes:
      grid: grid of the records.
      with_mask: whether a record has a lesion mask, all 0 where the study has none.
      folds: study id -> fold.
    """

    grid: Grid
    with_mask: bool
    folds: dict[str, int]

    def prepare(self, study: Study) -> PreparedStudy:
        """Read a study and resample it to the grid."""
        sources = hash_sources(study)
        try:
            scan, lesion_mask, warnings, details, listed = study.load()
            prepared = prepare(scan, self.grid, lesion_mask)
        except ScanError as error:
            return PreparedStudy(study.study_id, None, None, one_line(error), sources)
        except Exception as error:  # stops a Beam pipeline; in the pool it costs this study only
            error.add_note(f"while {study.study_id} was prepared")
            raise
        record = {
            "study_id": study.study_id,
            "category": study.category,
            "fold": self.folds[study.study_id],
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
        if self.with_mask:
            empty = np.zeros(self.grid.shape, np.uint8)
            record["lesion_mask"] = empty if prepared.lesion_mask is None else prepared.lesion_mask
        row = index_row(record, (*warnings, *prepared.warnings), details, scan.acquisition, listed)
        return PreparedStudy(study.study_id, record, row, None, sources)


@contextlib.contextmanager
def prepare_studies(
    studies: Sequence[Study], preparation: Preparation, workers: int | None
) -> Iterator[Iterator[PreparedStudy]]:
    """Prepare studies in worker processes, starting when the context is entered.

    Args:
      studies: the studies to read.
      preparation: the function from a study to its record.
      workers: number of processes; None for as many as cores may be used.

    Yields:
      An iterator over the prepared studies, in the order of `studies`. One that crashes, hangs or takes all memory has
      an error like any other that cannot be used. A worker holds one study at a time, and at most eight prepared
      studies a worker are in work or wait.

    Raises:
      UserError: if a process cannot be started.
    """
    workers = max(1, min(workers or usable_cores(), len(studies)))

    def time_limit(study: Study) -> float:
        return max(MIN_SECONDS, sum(file.num_bytes() for _, file in study.files()) / BYTES_PER_SECOND)

    with isolated_map(preparation.prepare, studies, time_limit, workers, in_flight=IN_FLIGHT) as results:
        yield (
            PreparedStudy(study.study_id, None, None, f"{study.study_id}: {result.reason}")
            if isinstance(result, Failure)
            else result
            for study, result in zip(studies, results, strict=True)
        )
