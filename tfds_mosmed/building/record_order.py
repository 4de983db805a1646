"""In which order studies become records, and which of them do."""

from collections.abc import Sequence
from typing import Any

from tensorflow_datasets.core import hashing

from tfds_mosmed.building.prepare_studies import PreparedStudy
from tfds_mosmed.building.study import Study
from tfds_mosmed.errors import UserError

SPLIT = "studies"  # the only one; parts are chosen at training time ("all" is TFDS's word for all splits)


def order_key(study_id: str) -> int:
    """TFDS's own order, by hash of the key: it says nothing of the class, and Beam writes it, too."""
    return hashing.Hasher(SPLIT).hash_key(study_id)


def in_record_order(studies: Sequence[Study]) -> list[Study]:
    """Sort studies as their records are sorted."""
    return sorted(studies, key=lambda study: order_key(study.study_id))


class RecordFilter:
    """Keeps the index rows of studies that become records, and the reasons of those that do not.

    Attributes:
      rows: of the index, in the records' order.
      skipped: (study id, reason).
    """

    def __init__(self, on_bad_study: str):
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self._on_bad_study = on_bad_study
        self._first_with: dict[str, str] = {}

    def accept(self, outcome: PreparedStudy) -> bool:
        """Take the outcomes in the records' order; of studies with the same voxels only the first becomes a record.

        Returns:
          Whether the study becomes a record.

        Raises:
          UserError: at the first that does not, if `on_bad_study` is "stop".
        """
        error = outcome.error
        if outcome.row is not None:
            first = self._first_with.setdefault(outcome.row["voxels_sha256"], outcome.study_id)
            if first == outcome.study_id:
                self.rows.append(outcome.row)
                return True
            error = f"{outcome.study_id} has the very voxels of {first}: one study under two names; remove one of them"
        if self._on_bad_study == "stop":
            raise UserError(f"{error} (or leave such studies out with --on_bad_study=skip)")
        self.skipped.append((outcome.study_id, str(error)))
        return False
