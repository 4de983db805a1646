"""Studies of a table."""

import logging
from pathlib import Path

from etils import epath

from tfds_mosmed.building.index import Listed
from tfds_mosmed.building.study import FileStudy, SourceFile, source_of
from tfds_mosmed.ct_table.cells import study_path
from tfds_mosmed.ct_table.study_files import find_mistakes
from tfds_mosmed.ct_table.table import Table, check_table, read_table
from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.acquisition import pseudonym


def list_studies(path: epath.PathLike, root: Path) -> list[FileStudy]:
    """List the studies of a table; their id is their path without suffix.

    Args:
      path: the table, see `table.read_table`.
      root: the folder that its paths are relative to.

    Raises:
      UserError: the table has mistakes, among them files that are not there; the message has their lines and columns.
    """
    if not root.is_dir():
        raise UserError(f"--manual_dir={root}: is not a folder; give the one that the paths in {path} are relative to")
    table = read_table(path)
    check_table(table, find_mistakes(table, root))
    if "label" not in table.columns:
        raise UserError(f"{path}: has no column label, or none of its rows has a label; add it")
    logger = logging.getLogger(__name__)
    if not table.is_utf8:
        logger.warning("%s: is not in UTF-8, and was read as Latin-1 (Windows-1252); save it as UTF-8 to be sure", path)
    subgroups = f"; subgroups: {', '.join(table.groups)}" if table.groups else ""
    logger.info("%s: %d studies, columns %s%s", path, len(table.rows), ", ".join(table.columns), subgroups)
    return studies_of(table, root)


def studies_of(table: Table, root: Path) -> list[FileStudy]:
    """Return the studies of a table whose mistakes were looked for, in its order; without labels their class is ""."""
    return [
        FileStudy(
            study_path(row.path).as_posix(),
            row.label,
            source_of(root / row.path),
            mask=SourceFile(root / row.mask) if row.mask else None,
            patient=pseudonym("patient", row.patient),
            site=row.site,
            listed=Listed(row.split, row.fold, row.weight, row.groups),
        )
        for row in table.rows
    ]
