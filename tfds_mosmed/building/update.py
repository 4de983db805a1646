"""Update of records: only new and changed studies are prepared, the others are taken from the records before."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_mosmed import early_exit, storage
from tfds_mosmed.building.prepare_studies import Preparation, PreparedStudy, prepare_studies
from tfds_mosmed.building.record_order import SPLIT
from tfds_mosmed.building.sources import SourceHashes, hash_sources
from tfds_mosmed.building.study import Study
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.scans.acquisition import UNKNOWN, Acquisition

PREVIOUS = "previous_"  # before the name of the folder of the records that are being replaced


def find_unchanged(metadata: Mapping[str, Any], studies: Sequence[Study]) -> dict[str, SourceHashes]:
    """Find the studies that have a record, of which neither files nor patient and site have changed.

    Args:
      metadata: of the records.
      studies: as they are now.

    Returns:
      study id -> hashes of its files now.
    """
    stored = {study_id: SourceHashes(*hashes) for study_id, hashes in metadata.get("sources", {}).items()}
    rows = {row["study_id"]: row for row in metadata["index"] if row["study_id"] in stored}
    known = [study for study in studies if study.study_id in rows and _is_listed_alike(study, rows[study.study_id])]

    def hash_known(study: Study) -> SourceHashes:
        hashes, before = hash_sources(study, content=False), stored[study.study_id]
        if hashes == before._replace(content=""):
            return before
        return hash_sources(study) if hashes.sizes == before.sizes else hashes

    with ThreadPoolExecutor(usable_cores()) as threads:
        now = {study.study_id: hashes for study, hashes in zip(known, threads.map(hash_known, known), strict=True)}
    return {
        study_id: hashes
        for study_id, hashes in now.items()
        if hashes.content and hashes._replace(times="") == stored[study_id]._replace(times="")
    }


def _is_listed_alike(study: Study, row: Mapping[str, Any]) -> bool:
    """Return whether a study has the patient and site of its record; the hashes do not tell where these are from."""
    acquisition = Acquisition(**row["acquisition"]) if "acquisition" in row else UNKNOWN
    patient, site = getattr(study, "patient", ""), getattr(study, "site", "")
    return patient == acquisition.patient and site in ("", acquisition.site)


class EarlierRecords:
    """Records that are being replaced.

    Args:
      folder: of the records.
      rows: their index.
      unchanged: see `find_unchanged`.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]], unchanged: Mapping[str, SourceHashes]):
        self._source: Any = tfds.builder_from_directory(str(folder)).as_data_source(SPLIT)  # type: ignore[call-arg]
        self._rows, self._unchanged = rows, unchanged
        self._position = {row["study_id"]: position for position, row in enumerate(rows)}

    def take(self, study_id: str, fold: int) -> PreparedStudy:
        """Read the record of an unchanged study, and put it into its fold, which depends on all studies."""
        position = self._position[study_id]
        stored = self._source[position].items()
        record = {name: value.decode() if isinstance(value, bytes) else value for name, value in stored}
        if record["study_id"] != study_id:
            raise ValueError(f"record {position} is of {record['study_id']}, not of {study_id}.")
        row = self._rows[position] | {"fold": fold}
        return PreparedStudy(study_id, record | {"fold": fold}, row, None, self._unchanged[study_id])

    @contextlib.contextmanager
    def prepare_others(
        self, studies: Sequence[Study], preparation: Preparation, workers: int | None
    ) -> Iterator[Iterator[PreparedStudy]]:
        """Prepare the studies that are not unchanged; see `prepare_studies`, which yields all in the same way."""
        others = [study for study in studies if study.study_id not in self._unchanged]
        with prepare_studies(others, preparation, workers) as prepared:
            yield (
                self.take(study.study_id, preparation.folds[study.study_id])
                if study.study_id in self._unchanged
                else next(prepared)
                for study in studies
            )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Rename a folder, and yield its new place; if there is no folder of its name at the end, it gets it back.

    After a power cut, `restore` does so.
    """
    aside = folder.with_name(PREVIOUS + folder.name)
    folder.rename(aside)
    try:
        with early_exit.registered(lambda: restore(folder)):
            yield aside
    finally:
        restore(folder)


def restore(folder: Path) -> None:
    """Rename a folder back where its replacement was not completed, else remove it; see `replacing`."""
    aside = folder.with_name(PREVIOUS + folder.name)
    if not aside.exists():
        return
    if folder.exists():
        storage.sync(folder.parent)  # the new name is not to be lost after the old records are
        shutil.rmtree(aside)
    else:
        aside.rename(folder)
    storage.sync(folder.parent)
