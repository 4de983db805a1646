"""Places of the records of several cohorts in one --data_dir: the first is in it, others are below `cohorts`."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfds_mosmed.building.study import Study
from tfds_mosmed.errors import UserError

COHORTS = "cohorts"
BUILT = "dataset_info.json"  # is written last


def own_place(root: Path, manual_dir: str | Path, table: Any = None) -> Path:
    """Return the --data_dir of a cohort that is not the first in `root`: named by the folder of its studies."""
    given = [os.path.abspath(path) for path in (manual_dir, table) if path]
    name = re.sub(r"[^\w.-]", "_", Path(given[0]).name)
    return root / COHORTS / f"{name}-{hashlib.sha256(os.fsencode(chr(0).join(given))).hexdigest()[:8]}"


def check_is_one(root: Path, records: Path) -> None:
    """Raise UserError where there are records of several cohorts, and no --manual_dir says which one is meant.

    Args:
      root: the --data_dir.
      records: below it, those of the first cohort.
    """
    built = records.relative_to(root) / BUILT
    others = sorted(place for place in (root / COHORTS).glob("*") if (place / built).exists())
    if others:
        shown = ", ".join(f"--data_dir={place}" for place in others)
        raise UserError(
            f"--data_dir={root} holds {records.parent.parent.name} of several cohorts: give --manual_dir, the folder "
            f"of the studies that are meant, or one of {shown}"
        )


def is_another(metadata: Mapping[str, Any], studies: Sequence[Study]) -> bool:
    """Return whether studies are another cohort: they have fewer than half of the ids in records."""
    stored = {row["study_id"] for row in metadata["index"]} | {study_id for study_id, _ in metadata["skipped"]}
    return 2 * len(stored & {study.study_id for study in studies}) < len(stored)
