"""Studies of a cohort as they lie in a folder, with or without a sub-folder for each class."""

import collections
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tfds_mosmed.building.study import FileStudy
from tfds_mosmed.ct_folder.mask_files import match_masks, split_masks
from tfds_mosmed.ct_folder.study_folder import LAYOUT, list_studies, study_at
from tfds_mosmed.ct_table.studies import studies_of
from tfds_mosmed.ct_table.study_files import find_mistakes
from tfds_mosmed.ct_table.table import check_table, read_table
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.acquisition import pseudonym
from tfds_mosmed.scans.find import studies_below
from tfds_mosmed.scans.folders import describe_left_out

MOST_CLASSES = 20
MOST_STUDIES_OF_PATIENT = 3  # in the median, of folders that are patients


class Cohort(NamedTuple):
    """Cohort of studies.

    Attributes:
      root: folder that the paths of the studies are relative to.
      studies: sorted by class and path; the category is "" where the class is not known.
      left_out: number of files that may hold studies and are not read, by kind.
      layout: a sentence on where the classes are from, or why they are not known.
    """

    root: Path
    studies: list[FileStudy]
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
    return Cohort(root, studies, left_out, layout)


def list_table(path: Path, root: Path) -> Cohort:
    """List the studies of a table, which may have no labels, without reading them.

    Args:
      path: the table.
      root: the folder that its paths are relative to.

    Raises:
      UserError: the table has mistakes; the message has their lines and columns.
    """
    table = read_table(path)
    check_table(table, find_mistakes(table, root))
    layout = f"The classes are {'those of the table' if 'label' in table.columns else 'not known: it has no labels'}."
    return Cohort(root, studies_of(table, root), {}, layout)


def path_below(root: Path, study: FileStudy) -> str:
    """Return the path of a study relative to the root of its cohort, with "/" between its parts."""
    path = study.source if isinstance(study.source, Path) else study.source.path
    return path.relative_to(root).as_posix()


def _without_classes(root: Path) -> tuple[list[FileStudy], dict[str, int]]:
    paths, left_out = studies_below(root, itself=False)
    if not paths:
        besides = f" but {describe_left_out(left_out)}, which are not read" if left_out else ""
        raise UserError(f"{root}: holds no study in NIfTI or DICOM format{besides}; give the folder of the studies")
    if paths == [root]:
        raise UserError(f"{root}: holds the files of one study; give the folder above")
    paths, masks = split_masks(root, paths)
    studies, unmatched = [study_at(path, root, "") for path in paths], len(masks)
    with contextlib.suppress(UserError):  # it is not clear which study a mask is of
        studies, unmatched = match_masks(root, studies, masks)
    return list(_with_patients(studies)), left_out | ({"masks without a study": unmatched} if unmatched else {})


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


def _with_patients(studies: Sequence[FileStudy]) -> Iterator[FileStudy]:
    """Yield studies with pseudonyms of the first folder that differs between them, without the study's own."""
    parts = [study.study_id.split("/") for study in studies]
    above = os.path.commonpath(["/" + "/".join(names[:-1]) for names in parts])
    for study, names in zip(studies, parts, strict=True):
        folder = "".join(names[len(Path(above).parts) - 1 : -1][:1])
        yield dataclasses.replace(study, patient=pseudonym("patient", folder))
