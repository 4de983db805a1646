"""Build of the records of a data set: raw studies -> array_record. Training does so too where they are missing.

python -m covidscan.build --dataset=mosmed/128x128x32 --manual_dir=MosMedData
python -m covidscan.build --dataset=mosmed/256x256x40 --manual_dir=MosMedData --beam_options=runner=DirectRunner
python -m covidscan.build --dataset=ct_folder/128x128x32 --manual_dir=ROOT --update
"""

from covidscan.cli import command, flags
from tfds_mosmed.errors import one_line


def main() -> None:
    """Read the flags and build."""
    # Imported lazily: TFDS is slow to import, and --help does not need it.
    from covidscan.report.cohort import cohort_text
    from tfds_mosmed import catalog

    paths = flags.data_paths()
    options = None
    if flags.FLAGS.beam_options:
        options = _beam_options(flags.FLAGS.beam_options)
    builder = catalog.load_builder(flags.FLAGS.dataset, paths.data_dir, paths.manual_dir, paths.table)
    builder.prepare(
        paths.manual_dir, paths.on_bad_study, beam_options=options, table=paths.table, update=flags.FLAGS.update
    )
    summary = builder.summary()
    print(f"{flags.FLAGS.dataset}: {summary.num_studies} studies in {builder.data_dir}")
    for study, reason in builder.skipped():
        print(f"  skipped {one_line(f'{study}: {reason}')}")
    print(f"\n{cohort_text(summary)}")


def _beam_options(given: list[str]):
    """Return the options NAME=VALUE and NAME of a Beam pipeline; raises UserError where Beam is not installed."""
    from tfds_mosmed.errors import UserError

    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--beam_options needs Apache Beam: pip install apache-beam") from error
    return PipelineOptions(flags=[f"--{option}" for option in given])


if __name__ == "__main__":
    flags.define_data()
    flags.define_build()
    flags.FLAGS.set_default("dataset", None)  # without a name, hundreds of phantoms would be made
    command.run(main, needs=["dataset"])
