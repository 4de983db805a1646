"""Inspection of a cohort before its records are built: what is in it, what cannot be used, and what to be wary of.

python -m covidscan.inspect --output_dir=inspection STUDIES
python -m covidscan.inspect --manual_dir=STUDIES studies.csv

Reads every study of a folder or a table as a build does. Writes a page, a contact sheet and, of a folder, a table of
its studies to start from.
"""

from pathlib import Path

from covidscan.cli import command, flags


def main(paths: list[str]) -> None:
    """Read the flags, read the studies, write and print what was found."""
    # Imported lazily: TFDS is slow to import, and --help does not need it.
    from covidscan.report import cohort_files
    from covidscan.report.cohort import cohort_text
    from covidscan.report.contact_sheet import tile
    from tfds_mosmed import storage
    from tfds_mosmed.errors import UserError
    from tfds_mosmed.inspection.examine import examine
    from tfds_mosmed.inspection.listing import list_cohort, list_table

    folder = Path(flags.FLAGS.output_dir)
    if storage.is_remote(flags.FLAGS.output_dir):
        raise UserError(f"--output_dir={flags.FLAGS.output_dir}: give a folder of this machine")
    given = Path(paths[0])
    is_table = given.is_file()
    if not is_table and (table := folder / cohort_files.TABLE).exists():
        raise UserError(f"{table}: exists, and may have been edited; move it away or give another --output_dir")
    listed = list_table(given, Path(flags.FLAGS.manual_dir or given.parent)) if is_table else list_cohort(given)
    if folder.resolve().is_relative_to(listed.root.resolve()):
        raise UserError(f"--output_dir={folder}: is in {listed.root}, among the studies; give a folder outside of it")
    examined = examine(listed, tile)
    print(f"{listed.layout}\n\n{cohort_text(examined.summary)}")
    cohort_files.write(folder, listed, examined, with_table=not is_table)
    print(f"\nWritten to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    flags.define_inspect()
    command.run(main, takes="FOLDER|TABLE")
