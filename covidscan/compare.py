"""Comparison of trained runs: metrics side by side with paired tests, curves over each other, differences of flags.

python -m covidscan.compare runs/first runs/second
python -m covidscan.compare --output_dir=comparison runs/first runs/second/evaluations/ct_folder_128x128x32-test-best

Each RUN is a workdir that was evaluated on its test part at its best checkpoint, or a folder in its evaluations. Writes
compare.html, compare.json and the plots. Runs on the same studies are tested; on others they stand side by side.
"""

from covidscan.cli import command, flags


def main(runs: list[str]) -> None:
    """Compare the runs, write the page and print a table."""
    # Imported lazily: they are slow, and --help does not need them.
    from etils import epath

    from covidscan.evaluation.run_comparison import compare_runs
    from covidscan.report.run_comparison import FILE, PAGE, comparison_text
    from tfds_mosmed import storage
    from tfds_mosmed.progress import announce

    announce(f"Comparing {len(runs)} runs")
    storage.check(flags.FLAGS.output_dir)
    folder = epath.Path(flags.FLAGS.output_dir)
    print(comparison_text(compare_runs(runs, folder)))
    print(f"\nReport:  {folder / PAGE}")
    print(f"Numbers: {folder / FILE}")


if __name__ == "__main__":
    flags.define_compare()
    command.run(main, takes="RUN RUN …")
