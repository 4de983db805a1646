"""Lesion masks among the files of a folder of studies: named after their study, beside it or in a folder of masks."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfds_mosmed.building.study import FileStudy, SourceFile
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.nifti import is_nifti_name

FOLDERS = ("mask", "masks")
SUFFIX = "_mask"


def is_mask_folder(name: str) -> bool:
    """Return whether a folder holds masks, by its name."""
    return name.lower() in FOLDERS


def split_masks(root: Path, paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Separate the masks from the studies of a class.

    Args:
      root: the folder of the classes.
      paths: what looks like a study.

    Returns:
      The studies, and the masks: what lies in a folder "mask" or "masks", and NIfTI files STUDY_mask of a study that is
      there. Without that study, STUDY_mask is taken for a study.
    """
    ids = {path: study_id_of(path.relative_to(root)) for path in paths}
    inside = {path for path in paths if any(map(is_mask_folder, path.relative_to(root).parent.parts))}
    studies = {ids[path] for path in paths if path not in inside}

    def is_mask(path: Path) -> bool:
        study_id = _study_of_mask(path.relative_to(root))
        return path in inside or (is_nifti_name(path.name) and study_id != ids[path] and study_id in studies)

    masks = [path for path in paths if is_mask(path)]
    found = set(masks)
    return [path for path in paths if path not in found], masks


def match_masks(root: Path, studies: Sequence[FileStudy], masks: Iterable[Path]) -> tuple[list[FileStudy], int]:
    """Assign masks to studies.

    A mask has the path of its study below `root`, with or without "_mask", and without the folder of masks; in a folder
    of masks beside the classes, the path in it may also begin below the class.

    Args:
      root: the folder of the classes.
      studies: without masks.
      masks: the files.

    Returns:
      The studies, and the number of masks without a study.

    Raises:
      UserError: a mask may be of several studies, a study has several, or none of a folder's fits any study.
    """
    by_id = {study.study_id: study for study in studies}
    short = collections.defaultdict(list)
    for study_id in by_id:
        short[study_id.partition("/")[2]].append(study_id)
    found: dict[str, Path] = {}
    unmatched = []
    for path in masks:
        study_id = _study_of_mask(path.relative_to(root))
        candidates = [study_id] if study_id in by_id else short.get(study_id, [])
        if not candidates or not is_nifti_name(path.name):
            unmatched.append(path)
            continue
        if len(candidates) > 1:
            raise UserError(
                f"{path}: may be the mask of {' or '.join(candidates[:2])}; put it into a folder of the class there"
            )
        other = found.setdefault(candidates[0], path)
        if other != path:
            raise UserError(f"{path}: {candidates[0]} has the mask {other} too; remove one of them")
    if unmatched and not found:
        raise UserError(
            f"{unmatched[0]}: lies among masks, and no study has its name; name a mask as its study, with or without "
            f"{SUFFIX}, or rename the folder if it holds studies"
        )
    with_masks = [
        dataclasses.replace(study, mask=SourceFile(found[study.study_id])) if study.study_id in found else study
        for study in studies
    ]
    return with_masks, len(unmatched)


def _study_of_mask(path: Path) -> str:
    """Return the id of the study that a mask is named after."""
    parts = [part for part in path.parent.parts if not is_mask_folder(part)]
    study_id = study_id_of(Path(*parts, path.name))
    return study_id[: -len(SUFFIX)] if study_id.lower().endswith(SUFFIX) else study_id


def study_id_of(path: Path) -> str:
    """Return the id of a study: its path below the folder of the classes, without suffix."""
    name = path.name
    for suffix in (".nii.gz", ".nii", ".zip"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return as_text(path.with_name(name).as_posix())


def as_text(name: str) -> str:
    """Write bytes of a name that are not UTF-8 as their codes: records hold no other text."""
    return os.fsencode(name).decode(errors="backslashreplace")
