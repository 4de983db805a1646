"""Cells of a table of studies, and the names of its columns."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath, PureWindowsPath

from tfds_mosmed.ct_table.csv_file import normal
from tfds_mosmed.errors import visible

KNOWN = ("path", "label", "patient", "site", "fold", "split", "mask", "weight")
PARTS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst"),
}
SEVERAL, NONE = "|", "none"  # between several labels; in place of an empty cell where some cells have several
NO_VALUE = {"na", "n/a", "#n/a", "nan", "<na>", "null", "?", "-"}  # written where there is none
# Names without punctuation that are meant to be known columns, or identify patients.
_MEANT = {
    "patient": re.compile(
        r"(patient|pat|subject|subj|sub|participant|person|individual)s?(id|uid|name|no|nr|num|number|code|key)?|mrn|pid"
    ),
    "weight": re.compile(r"(sample|study|loss)?weights?"),
    "split": re.compile(r"splits?"),
    "fold": re.compile(r"(cv|k)?folds?(id|no|nr|num|number|index|idx)?"),
    "mask": re.compile(r"(lesion|infection)?(masks?|seg|segmentations?)(path|file|filename|name)?"),
}
_IDENTIFIES = re.compile(r"(patients?)?(birth.*|dob|dateofbirth|(first|last|family|given|sur)name)")


def describe_unknown(name: str, values: Collection[str]) -> str:
    """Return what is wrong with a column that is not in `KNOWN`; "" if it can be one of subgroups.

    Args:
      name: of the column.
      values: its cells that are not empty.
    """
    squashed = re.sub(r"[\W_]+", "", normal(name))
    meant = next((column for column, pattern in _MEANT.items() if pattern.fullmatch(squashed)), None)
    parts = {normal(value) for value in values}
    if len(parts) > 1 and parts <= {alias for names in PARTS.values() for alias in names}:
        meant = "split"
    if meant:
        return f"is no known column; rename it to {meant}, or remove it"
    return "identifies patients; remove it" if _IDENTIFIES.fullmatch(squashed) else ""


def study_path(path: str) -> PurePosixPath:
    """Return the path of a study without the suffix of its file: its id."""
    for suffix in (".nii.gz", ".nii", ".zip"):
        if path.lower().endswith(suffix):
            return PurePosixPath(path[: -len(suffix)])
    return PurePosixPath(path)


def parse_path(text: str) -> str:
    """Return a path below the root, with "/" between its parts; raises ValueError with the reason, as all here."""
    if visible(text) != text or "\t" in text:
        raise ValueError(f"is {text!a}, which has control characters; rename the file")
    path = PurePosixPath(PureWindowsPath(text).as_posix())
    if path.is_absolute() or PureWindowsPath(text).drive or "://" in text:
        raise ValueError(f"is {text!a}, which is not relative to --manual_dir")
    if ".." in path.parts or not path.parts:
        raise ValueError(f"is {text!a}, which leads out of --manual_dir, or is that folder itself")
    return path.as_posix()


def parse_part(text: str) -> str:
    """Return "train", "validation" or "test"."""
    for part, names in PARTS.items():
        if normal(text) in names:
            return part
    remedy = "; name a column of numbers fold" if text.isdecimal() else ""
    raise ValueError(f"is {text!a}, and none of {', '.join(PARTS)}{remedy}")


def parse_fold(text: str) -> int:
    """Return the number of a fold."""
    if not re.fullmatch(r"[0-9]{1,3}(\.0+)?", text):
        remedy = "; name a column of parts split" if any(normal(text) in names for names in PARTS.values()) else ""
        raise ValueError(f"is {text!a}, and not the number of a fold{remedy}")
    return int(float(text))
