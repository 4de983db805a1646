"""Description of built records, as it lies beside them, and its checks: it may be damaged or edited."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from tfds_mosmed import storage
from tfds_mosmed.building.index import NUM_FOLDS, Listed, StudyIndex, index_row
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.preprocessing import signature

FILES = ("dataset_info.json", "features.json", "metadata.json")  # written by TFDS
_ROW = {
    "study_id": str,
    "category": str,
    "fold": int,
    "num_slices": int,
    "source_spacing_mm": list,
    "voxels_sha256": str,
    "signature": str,
    "lungs_found": bool,
    "has_lesion_mask": bool,
    "warnings": list,
}
_OPTIONAL = {"left_out": dict, "sources": dict, "checks": dict, "listing_sha256": str, "prepared_by": str}


class StoredInfo(tfds.core.DatasetInfo):
    """Description of a data set. TFDS writes it last, before the records' folder takes its name."""

    def write_to_directory(self, dataset_info_dir: epath.PathLike, all_metadata: bool = True) -> None:
        """Write it, and wait until it and the records beside it survive a power cut."""
        super().write_to_directory(dataset_info_dir, all_metadata)
        storage.sync_tree(dataset_info_dir)

    def read_from_directory(self, dataset_info_dir: epath.PathLike) -> None:
        """Read it; raises UserError if one of the files is not as it was built."""
        builder: Any = self._builder_or_identity
        name = FILES[0]
        try:
            for name in FILES:
                _check_file(Path(dataset_info_dir, name))
            name = FILES[0]
            super().read_from_directory(dataset_info_dir)
            if self.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
                raise ValueError(f"fileFormat is {self.file_format}")
        except Exception as error:  # TFDS raises many types for damaged files
            reason = error.strerror if isinstance(error, OSError) else repr(error)
            raise UserError(
                f"{Path(dataset_info_dir, name)}: is not as the build wrote it ({one_line(reason)[:200]}); put it back "
                f"from a copy, or build the records again: {builder.rebuild_command()}"
            ) from error


def _check_file(path: Path) -> None:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise TypeError("no object")
    if path.name == "metadata.json":
        _check(content)


def _check(metadata: dict[str, Any]) -> None:
    for row in metadata["index"]:
        _check_row(row)
    index = StudyIndex.from_rows(metadata["index"])
    signature.from_texts(index.signature)
    if not index.study_id or len({*index.study_id}) < len(index):
        raise ValueError("no study, or one that is there twice")
    lists = (*index.warnings.values(), *metadata["skipped"], *metadata.get("sources", {}).values())
    acquired = itertools.chain.from_iterable(index.acquisition.values())
    texts = [*itertools.chain.from_iterable(lists), *metadata["config"].values(), *acquired]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("something else than a text")
    if any(len(study) != 2 for study in metadata["skipped"]):
        raise ValueError("a skipped study is no pair of study and reason")
    if any(len(values) != 3 for values in metadata.get("sources", {}).values()):
        raise ValueError("sources do not have three hashes")
    for name, kind in _OPTIONAL.items():
        if not isinstance(metadata.get(name, kind()), kind):
            raise TypeError(f"{name} is {metadata[name]!r}")
    for name in ("left_out", "checks"):
        if not all(type(count) is int and count >= 0 for count in metadata.get(name, {}).values()):
            raise TypeError(f"{name} holds something else than numbers")
    studies = {*index.study_id, *(study_id for study_id, _ in metadata["skipped"])}
    if "sources" in metadata and metadata["sources"].keys() != studies:
        raise ValueError("sources are not those of the studies")


def _check_row(row: dict[str, Any]) -> None:
    for name, kind in _ROW.items():
        if type(row[name]) is not kind:
            raise TypeError(f"{name} is {row[name]!r}")
    if not isinstance(row.get("details", {}), dict):
        raise TypeError(f"details is {row['details']!r}")
    _check_listed(Listed(**row.get("listed", {})))
    spacing = row["source_spacing_mm"]
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"source_spacing_mm is {spacing}")
    if not 0 <= row["fold"] < NUM_FOLDS or not 0 < row["num_slices"] < 2**31:
        raise ValueError(f"fold is {row['fold']}, num_slices is {row['num_slices']}")


def _check_listed(listed: Listed) -> None:
    split, fold, weight, groups = listed
    texts = [split, *groups, *groups.values()]
    if not all(isinstance(text, str) for text in texts) or type(fold) not in (int, type(None)):
        raise TypeError(f"listed holds {[fold, *texts]}")
    if type(weight) not in (int, float) or not 0 < weight < math.inf:
        raise ValueError(f"weight is {weight!r}")


def check_record(record: dict[str, Any], row: dict[str, Any]) -> None:
    """Check that a record is the one that a row of the index describes; raises ValueError."""
    found = index_row(record, row["warnings"], row.get("details", {}))
    for name, value in found.items():
        if value != row[name]:
            raise ValueError(f"{name} is {value!r} there and {row[name]!r} in metadata.json")
