"""Files of the studies in a table: what is missing, and what is there and not in the table."""

from pathlib import Path

from tfds_mosmed.ct_table.csv_file import Mistake, normal
from tfds_mosmed.ct_table.table import Table
from tfds_mosmed.errors import one_line
from tfds_mosmed.scans.archive import is_zip_name
from tfds_mosmed.scans.folders import LEFT_OUT_SUFFIXES, file_suffix
from tfds_mosmed.scans.nifti import is_nifti_name

SUFFIXES = (".nii.gz", ".nii", ".zip")


def find_mistakes(table: Table, root: Path) -> list[Mistake]:
    """Return a mistake for each file of a table that is not below `root` or of no kind that is read; reads none."""
    columns = {"path": lambda row: row.path, "mask": lambda row: row.mask}
    mistakes = []
    for row in table.rows:
        for column, path_of in columns.items():
            if (path := path_of(row)) and (reason := _what_is_wrong(root, path, column)):
                mistakes.append(Mistake(row.line, column, f"is {path!a}, {reason}"))
    return mistakes


def _what_is_wrong(root: Path, relative: str, column: str) -> str:
    path = root / relative
    try:
        if not path.exists():
            return f"which is not in {one_line(root)}{_hint(path)}"
    except OSError as error:
        return f"which cannot be looked at ({error.strerror})"
    if column == "mask":
        return "" if path.is_file() and is_nifti_name(path.name) else "which is no .nii or .nii.gz file"
    if path.is_dir():
        return "" if any(path.iterdir()) else "which is an empty folder"
    suffix = file_suffix(path.name)
    if suffix in LEFT_OUT_SUFFIXES and not is_zip_name(path.name) and not is_nifti_name(path.name):
        return f"and {suffix} files are not read; convert it to NIfTI or give the DICOM folder"
    return ""


def _hint(path: Path) -> str:
    """Return a hint at a file whose name differs in its suffix, or is equal when normalised."""
    with_suffix = next((suffix for suffix in SUFFIXES if path.with_name(path.name + suffix).exists()), None)
    if with_suffix:
        return f"; add {with_suffix}"
    if path.parent.is_dir():
        alike = [one.name for one in path.parent.iterdir() if normal(one.name) == normal(path.name)]
        if alike:
            return f", but {alike[0]!a} is"
    return ""
