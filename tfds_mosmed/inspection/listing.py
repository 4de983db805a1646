"""Studies of a cohort as they lie in a folder, with or without a sub-folder for each class."""

import collections
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.ct_folder.study_folder import LAYOUT, list_studies, study_at
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.find import studies_below
from tfds_mosmed.scans.folders import describe_left_out

MOST_CLASSES = 20
MOST_STUDIES_OF_PATIENT = 3  # in the median, of folders that are patients


class Cohort(NamedTuple):
    """Cohort of studies.

    Attributes:
      root: folder that the paths of the studies are relative to.
      studies: sorted by class and path; the category is "" where the class is not known.
      folder_of: study id -> the folder that tells its patient where its file does not, "" if there is none.
      left_out: number of files that may hold studies and are not read, by kind.
      layout: a sentence on where the classes are from, or why they are not known.
    """

    root: Path
    studies: list[FileStudy]
    folder_of: dict[str, str]
    left_out: dict[str, int]
    layout: str


def list_cohort(root: Path) -> Cohort:
    """List the studies in a folder without reading them.

    Args:
      root: the folder. Its sub-folders are the classes, unless they are laid out or named as patients or parts are.

    Raises:
      UserError: it holds no study.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the folder of the studies")
    try:
        studies, left_out = list_studies(root)
        reason = _why_no_classes([study.category for study in studies])
    except UserError as error:
        # With names of folders, which are for the log alone.
        told = str(error).removeprefix(f"--manual_dir={root}: ")
        logging.getLogger(__name__).warning("%s: is not laid out by classes: %s", root, told)
        studies, left_out, reason = [], {}, f"the folder is not laid out as {LAYOUT}"
    if reason:
        studies, left_out = _without_classes(root)
        layout = f"The classes are not known: {reason}. Fill in the column label of table.csv."
    else:
        layout = "The classes are the folders directly below the one that was given."
    return Cohort(root, studies, dict(_folders(studies, has_classes=not reason)), left_out, layout)


def path_below(root: Path, study: FileStudy) -> str:
    """Return the path of a study relative to the root of its cohort, with "/" between its parts."""
    path = study.source if isinstance(study.source, Path) else study.source.path
    return path.relative_to(root).as_posix()


def _without_classes(root: Path) -> tuple[list[FileStudy], dict[str, int]]:
    paths, left_out = studies_below(root, itself=False)
    if not paths:
        besides = left_out and f" but {describe_left_out(left_out)}, which are not read"
        raise UserError(f"{root}: holds no study in NIfTI or DICOM format{besides}; give the folder of the studies")
    if paths == [root]:
        raise UserError(f"{root}: holds the files of one study; give the folder above")
    return [study_at(path, root, "") for path in paths], left_out


def _why_no_classes(classes: Sequence[str]) -> str:
    """Return why folders are not classes; "" if they may be."""
    counts = collections.Counter(classes)
    if len(counts) == 1:
        return "all studies are in one folder"
    if len(counts) > MOST_CLASSES:
        return f"the {len(counts)} folders directly below seem to be patients"
    names = {re.sub(r"\d+", "0", name) for name in counts}
    is_numbered = len(names) == 1 and re.search(r"\d", next(iter(counts)))
    if is_numbered and sorted(counts.values())[len(counts) // 2] <= MOST_STUDIES_OF_PATIENT:
        return "the folders directly below, whose names differ in numbers only, seem to be patients"
    return ""


def _folders(studies: Sequence[FileStudy], has_classes: bool) -> Iterator[tuple[str, str]]:
    """Yield each study's id with the first folder that differs between studies, without that of the study itself."""
    parts = {study.study_id: study.study_id.split("/")[int(has_classes) :] for study in studies}
    num_common = 0
    if not has_classes and len(parts) > 1:
        num_common = len(Path(os.path.commonpath(["/".join(["", *names]) for names in parts.values()])).parts) - 1
    for study_id, names in parts.items():
        yield study_id, "".join(names[num_common:-1][:1])
