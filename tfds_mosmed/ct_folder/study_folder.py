"""Search for the studies in a folder with a sub-folder for each class."""

import collections
import dataclasses
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfds_mosmed.building.study import FileStudy, source_of
from tfds_mosmed.ct_folder.mask_files import as_text, is_mask_folder, match_masks, split_masks, study_id_of
from tfds_mosmed.errors import UserError, one_line, visible
from tfds_mosmed.scans.acquisition import pseudonym
from tfds_mosmed.scans.find import studies_below
from tfds_mosmed.scans.folders import LEFT_OUT_SUFFIXES, TABLE_SUFFIXES, count_left_out, describe_left_out, is_hidden
from tfds_mosmed.scans.nifti import is_nifti_name

LAYOUT = "ROOT/CLASS/study.nii.gz or ROOT/CLASS/STUDY/*.dcm"
COUNTED = (*LEFT_OUT_SUFFIXES, *TABLE_SUFFIXES)
MOST_SINGLE = 20  # classes of one study each, where they are most of all classes
DATE = re.compile(r"(19|20)\d\d([\W_]?(0?[1-9]|1[0-2])([\W_]?\d\d?)?)?")
PERSON = re.compile(r"(.*[\W_])?(pat|patients?|sub|subj|subjects?|cases?|person|pid|id|mrn)[\W_]*\d+.*", re.IGNORECASE)
MIN_DIGITS = 3  # of names that are numbers of patients, as P001; grades have fewer
PART = re.compile(
    r"\W*\d*[\W_]*(train|trn|training|val|valid|validation|dev|development|eval|test|tst|testing|hold_?out"
    r"|(fold|cv|subset|split|part|batch)[\W_]*\d+|(images|labels|masks)[\W_]?(tr|ts|va|val)"
    r"|(internal|external)([\W_]*(test|val|validation))?)"
    r"([\W_]*(set|data|images|split|cases))?[\W_]*",
    re.IGNORECASE,
)


def list_studies(root: Path) -> tuple[list[FileStudy], dict[str, int]]:
    """List the studies below a folder, which has a sub-folder for each class.

    A NIfTI file is a study, and so is a .zip of one, or a folder with DICOM files. Folders of series with the same
    StudyInstanceUID are one study: the folder that holds only these. Lesion masks are NIfTI files, see `match_masks`.

    Args:
      root: the folder.

    Returns:
      The studies, whose id is their path below `root` without suffix, with "/" between its parts; and the number of
      files of other kinds that may hold studies, by suffix.

    Raises:
      UserError: if `root` has another layout.
    """
    if not root.is_dir():
        raise UserError(f"--manual_dir={root}: is not a folder; lay your studies out as {LAYOUT}")
    studies: list[FileStudy] = []
    beside = [path.name for path in root.iterdir() if is_nifti_name(path.name) and path.is_file()]
    left_out = collections.Counter({"studies in no class's folder": len(beside)} if beside else {})
    left_out.update(count_left_out((path.name for path in root.iterdir() if path.is_file()), COUNTED))
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    class_dirs = [path for path in folders if not is_mask_folder(path.name)]
    masks = [path for folder in folders if folder not in class_dirs for path in studies_below(folder, itself=False)[0]]
    _check_names(root, [path.name for path in class_dirs])
    for class_dir in class_dirs:
        paths, others = studies_below(class_dir, itself=False, suffixes=COUNTED)
        if class_dir in paths:
            raise UserError(f"{class_dir}: holds DICOM files itself; give each study a folder of its own in it")
        found, of_class = split_masks(root, paths)
        masks += of_class
        if not found:
            kinds = describe_left_out(others)
            raise UserError(
                f"{class_dir}: holds no study{kinds and f' but {kinds}, which are not read'}; "
                f"fill or remove it (the layout is {LAYOUT})"
            )
        studies += [_in_class(path, root, class_dir) for path in found]
        left_out.update(others)
    if not studies:
        besides = f" but {describe_left_out(left_out)}" if left_out else ""
        raise UserError(f"--manual_dir={root}: holds no folders with studies{besides}; lay them out as {LAYOUT}")
    for study in studies:
        if visible(study.study_id) != study.study_id or {"\t", "\n"} & {*study.study_id}:
            path = one_line(root / study.study_id)
            raise UserError(f"{path}: the name has control characters; rename it")
    ids = collections.Counter(study.study_id for study in studies)
    twice = [study_id for study_id, count in ids.items() if count > 1]
    if twice:
        raise UserError(
            f"{root / twice[0]}: is there twice, as .nii, .nii.gz or a folder; remove or rename one of them"
        )
    _check_classes(root, studies)
    studies, unmatched = match_masks(root, studies, masks)
    left_out.update({"masks without a study": unmatched} if unmatched else {})
    return studies, dict(left_out)


def _check_names(root: Path, names: Sequence[str]) -> None:
    """Check that folders are named after classes, each after one of its own, and not after parts of a data set."""
    parts = [name for name in names if PART.fullmatch(name)]
    rests: dict[str, set[str]] = collections.defaultdict(set)
    for name in names:
        words = [word for word in re.split(r"[\W_]+", name) if word]
        rest = [word for word in words if not PART.fullmatch(word)]
        if rest and len(rest) < len(words):
            rests[" ".join(rest)].add(name)
    parts += [name for alike in rests.values() if len(alike) > 1 for name in sorted(alike)]
    if len(parts) > 1 or len(parts) == len(names) == 1 or any("train" in name.lower() for name in parts):
        raise UserError(
            f"--manual_dir={root}: holds the folders {', '.join(parts)}, which are parts of a data set and no classes; "
            f"lay the studies out as {LAYOUT}, all parts together: CovidScan splits them itself"
        )
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
        if other != name:
            raise UserError(
                f"--manual_dir={root}: holds the folders {other!a} and {name!a}, whose names differ in case, spaces or "
                "Unicode form only; join them or rename one"
            )


def _check_classes(root: Path, studies: list[FileStudy]) -> None:
    """Check that the folders of `root` are the classes, and not sites or years with the classes below them."""
    below: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for study in studies:
        folders = study.study_id.split("/")[1:-1]
        below[study.category][folders[0] if folders else ""] += 1
    first, *others = (counts.keys() for counts in below.values())
    several = all(count > 1 for counts in below.values() for count in counts.values())
    if others and len(first) > 1 and several and all(names == first for names in others):
        raise UserError(
            f"--manual_dir={root}: each of its folders {', '.join(sorted(below))} holds {', '.join(sorted(first))}, "
            f"each with several studies: if these are the classes, lay the studies out as {LAYOUT}; if not, rename them"
        )
    if not others:
        logging.getLogger(__name__).warning("%s: all studies are of one class, %s", root, *below)
    _check_are_classes(root, collections.Counter(study.category for study in studies))


def _check_are_classes(root: Path, counts: Mapping[str, int]) -> None:
    """Check that folders are classes, by their number of studies, and warn if they seem to be patients or dates."""
    num_single = sum(count == 1 for count in counts.values())
    are_single = 2 * num_single > len(counts) > 2
    if are_single and num_single > MOST_SINGLE:
        raise UserError(
            f"--manual_dir={root}: {num_single} of its {len(counts)} folders hold one study, as folders of patients do "
            f"and of classes do not; lay the studies out as {LAYOUT}, or give a table of them (--dataset=ct_table/…)"
        )
    are_alike = len({re.sub(r"\d+", "0", name) for name in counts}) == 1 < len(counts)
    if all(map(DATE.fullmatch, counts)):
        seen = "are named after years or dates"
    elif all(map(PERSON.fullmatch, counts)) or (are_alike and len(re.findall(r"\d", min(counts))) >= MIN_DIGITS):
        seen = "are named after patients"
    elif are_single:
        seen = f"are taken for classes, and {num_single} of {len(counts)} hold one study"
    else:
        return
    logging.getLogger(__name__).warning(
        "%s: its folders, as %s, %s: if the folders below them are the classes, lay the studies out as %s",
        root, min(counts), seen, LAYOUT,
    )  # fmt: skip


def _in_class(path: Path, root: Path, class_dir: Path) -> FileStudy:
    """Return a study of a class; the folder directly below the class's, if it is in one, is its patient."""
    patient = "".join(map(as_text, path.relative_to(class_dir).parts[:-1][:1]))
    study = study_at(path, root, as_text(class_dir.name))
    return dataclasses.replace(study, patient=pseudonym("patient", patient))


def study_at(path: Path, root: Path, category: str) -> FileStudy:
    """Return the study in a file or folder below `root`; its id is its path without suffix."""
    return FileStudy(study_id_of(path.relative_to(root)), category, source_of(path))
