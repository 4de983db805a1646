"""Order of the records, and selection of the studies that become records."""

from collections.abc import Sequence
from typing import Any

from tensorflow_datasets.core import hashing

from tfds_mosmed.building.prepare_studies import PreparedStudy
from tfds_mosmed.building.sources import SourceHashes
from tfds_mosmed.building.study import Study
from tfds_mosmed.errors import UserError

SPLIT = "studies"  # the only one: train, validation and test are chosen at training time ("all" is reserved by TFDS)


def order_key(study_id: str) -> int:
    """Return the sort key of a record. TFDS's hash does not depend on the class, and Beam writes in its order, too."""
    return hashing.Hasher(SPLIT).hash_key(study_id)


def in_record_order(studies: Sequence[Study]) -> list[Study]:
    """Return the studies in the order of their records."""
    return sorted(studies, key=lambda study: order_key(study.study_id))


class RecordFilter:
    """Selects the studies that become records, and collects their index rows and the reasons of the others.

    Attributes:
      rows: rows of the index, in the records' order.
      skipped: (study id, reason) of the others.
      sources: study id -> hashes of its files, of all studies; None where they were not hashed.
    """

    def __init__(self, on_bad_study: str):
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self.sources: dict[str, SourceHashes | None] = {}
        self._on_bad_study = on_bad_study
        self._first_with: dict[str, str] = {}

    def accept(self, study: PreparedStudy) -> bool:
        """Decide on the next study, in the records' order; of studies with the same voxels the first is accepted.

        Returns:
          Whether the study becomes a record.

        Raises:
          UserError: if it does not, and `on_bad_study` is "stop".
        """
        self.sources[study.study_id] = study.sources
        error = study.error
        if study.row is not None:
            first = self._first_with.setdefault(study.row["voxels_sha256"], study.study_id)
            if first == study.study_id:
                self.rows.append(study.row)
                return True
            error = f"{study.study_id} has the same voxels as {first}: one study under two names; remove one of them"
        if self._on_bad_study == "stop":
            raise UserError(f"{error} (or leave such studies out with --on_bad_study=skip)")
        self.skipped.append((study.study_id, str(error)))
        return False
