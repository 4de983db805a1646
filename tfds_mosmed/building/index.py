"""Index of a data set: the small fields of its records, kept apart from the volumes."""

import dataclasses
import hashlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfds_mosmed.building.patients import assign_groups, group_by_patient, tell_apart
from tfds_mosmed.scans.acquisition import UNKNOWN, Acquisition

NUM_FOLDS = 10
MOST_NAMED = 3  # studies in a message
_NUMBER = re.compile(r"\d+(\.\d+)?")


class Listed(NamedTuple):
    """Entries of a table for a study, besides its class, patient and site.

    Attributes:
      split: "train", "validation" or "test"; "" if the table has no splits.
      fold: None if the table has no folds.
      weight: in the loss.
      groups: column -> value, for subgroups.
    """

    split: str = ""
    fold: int | None = None
    weight: float = 1.0
    groups: Mapping[str, str] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True, eq=False)
class StudyIndex:
    """Small fields of the records; row i is of record i.

    Attributes:
      study_id: (study,).
      category: (study,).
      fold: (study,) int, 0 to 9, stratified by category.
      num_slices: (study,) int, of the source.
      source_spacing_mm: (study, 3) float, along (slice, row, column).
      voxels_sha256: (study,).
      signature: (study,) perceptual hashes as text, see `tfds_mosmed.preprocessing.signature`.
      lungs_found: (study,) bool.
      has_lesion_mask: (study,) bool.
      warnings: study id -> its warnings, a line each; studies without any are left out.
      details: study id -> what else is known of it, such as a phantom's findings; studies without any are left out.
      acquisition: study id -> how it was acquired; studies of which nothing is known are left out.
      listed: study id -> what a table tells of it; of studies that a table lists.
    """

    study_id: list[str]
    category: list[str]
    fold: np.ndarray
    num_slices: np.ndarray
    source_spacing_mm: np.ndarray
    voxels_sha256: list[str]
    signature: list[str]
    lungs_found: np.ndarray
    has_lesion_mask: np.ndarray
    warnings: dict[str, list[str]]
    details: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    acquisition: dict[str, Acquisition] = dataclasses.field(default_factory=dict)
    listed: dict[str, Listed] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.study_id)

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]]) -> "StudyIndex":
        """Return the index of rows as `index_row` returns them."""

        def column(name: str) -> list[Any]:
            return [row[name] for row in rows]

        return cls(
            study_id=column("study_id"),
            category=column("category"),
            fold=np.array(column("fold"), np.int64),
            num_slices=np.array(column("num_slices"), np.int64),
            source_spacing_mm=np.array(column("source_spacing_mm"), np.float64).reshape(-1, 3),
            voxels_sha256=column("voxels_sha256"),
            signature=column("signature"),
            lungs_found=np.array(column("lungs_found"), bool),
            has_lesion_mask=np.array(column("has_lesion_mask"), bool),
            warnings={row["study_id"]: row["warnings"] for row in rows if row["warnings"]},
            details={row["study_id"]: row["details"] for row in rows if "details" in row},
            acquisition={row["study_id"]: Acquisition(**row["acquisition"]) for row in rows if "acquisition" in row},
            listed={row["study_id"]: Listed(**row["listed"]) for row in rows if "listed" in row},
        )

    def patients(self) -> list[str]:
        """Return the pseudonym of each study's patient, "" where it is not known; see `patients.tell_apart`."""
        return tell_apart([self.acquisition.get(study_id, UNKNOWN).patient for study_id in self.study_id])

    def sites(self) -> list[str]:
        """Return the site of each study, "" where it is not known."""
        return [self.acquisition.get(study_id, UNKNOWN).site for study_id in self.study_id]


def index_row(
    record: dict[str, Any],
    warnings: Sequence[str],
    details: Mapping[str, Any],
    acquisition: Acquisition = UNKNOWN,
    listed: Listed | None = None,
) -> dict[str, Any]:
    """Return the row of the index for a record, as plain JSON values."""
    return {
        "study_id": record["study_id"],
        "category": record["category"],
        "fold": int(record["fold"]),
        "num_slices": int(record["source_shape"][0]),
        "source_spacing_mm": [float(step) for step in record["source_spacing_mm"]],
        "voxels_sha256": record["voxels_sha256"],
        "signature": record["signature"],
        "lungs_found": bool(record["lungs_found"]),
        "has_lesion_mask": bool(record["has_lesion_mask"]),
        "warnings": list(warnings),
        **({"details": dict(details)} if details else {}),
        **({"acquisition": acquisition._asdict()} if acquisition != UNKNOWN else {}),
        **({"listed": listed._asdict() | {"groups": dict(listed.groups)}} if listed else {}),
    }


class WarningKind(NamedTuple):
    """Warnings that differ in their numbers only.

    Attributes:
      text: the warning of the first study, and that it is that of the first if they differ.
      study_ids: the studies.
    """

    text: str
    study_ids: list[str]

    def __str__(self) -> str:
        count = len(self.study_ids)
        return f"{count} {'study' if count == 1 else 'studies'} ({name_some(self.study_ids)}): {self.text}"


def group_warnings(warnings: Mapping[str, Sequence[str]]) -> list[WarningKind]:
    """Group the warnings of studies by kind, the most frequent first.

    Args:
      warnings: see `StudyIndex.warnings`.
    """
    groups: dict[str, dict[str, str]] = {}
    for study_id in sorted(warnings):
        for line in warnings[study_id]:
            groups.setdefault(_NUMBER.sub("0", line), {}).setdefault(study_id, line)
    kinds = [
        WarningKind(next(iter(lines.values())) + (", in the first" if len({*lines.values()}) > 1 else ""), list(lines))
        for lines in groups.values()
    ]
    return sorted(kinds, key=lambda kind: -len(kind.study_ids))


def name_some(study_ids: Sequence[str]) -> str:
    """Name the first few studies."""
    more = len(study_ids) - MOST_NAMED
    return ", ".join(study_ids[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def assign_folds(study_ids: Sequence[str], categories: Sequence[str], patients: Sequence[str]) -> dict[str, int]:
    """Assign the studies to ten folds, stratified by category; those of a patient are in one.

    Within a category, studies are dealt to the folds in turn, in the order of the hashes of their ids, which does not
    depend on class, scanner or date. Each category starts where the last one ended, so that folds are of equal size.
    Where patients have several studies, see `patients.assign_groups`.

    Returns:
      study id -> fold.
    """

    def sort_key(pair: tuple[str, str]) -> tuple[str, bytes]:
        category, study_id = pair
        return category, hashlib.sha256(study_id.encode()).digest()

    groups = group_by_patient(study_ids, patients)
    if any(len(group) > 1 for group in groups):
        shares = dict.fromkeys(range(NUM_FOLDS), 1 / NUM_FOLDS)
        folds = assign_groups(groups, study_ids, categories, shares, seed=0)
        return {study_ids[position]: fold for fold, members in folds.items() for position in members}
    order = sorted(zip(categories, study_ids, strict=True), key=sort_key)
    return {study_id: position % NUM_FOLDS for position, (_, study_id) in enumerate(order)}
