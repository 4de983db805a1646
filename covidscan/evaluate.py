"""Judge a trained run: restore a checkpoint, predict every study of a split once, write figures and a report.

python -m covidscan.evaluate --workdir=runs/full
python -m covidscan.evaluate --workdir=runs/full --dataset=ct_folder/128x128x32 --manual_dir=my_studies
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and evaluate."""
    # These import JAX: not before --help has been answered.
    from covidscan.distributed import processes
    from covidscan.evaluation import cross_validation
    from covidscan.evaluation.evaluate import evaluate
    from covidscan.evaluation.evaluation_set import EvaluationOptions
    from covidscan.runs.workdir import is_cross_validation
    from tfds_mosmed.errors import UserError

    given = flags.FLAGS
    elsewhere = given["data_dir"].present or given["manual_dir"].present
    paths = flags.data_paths() if elsewhere else None
    wishes = EvaluationOptions(given.metadata, given.compare, given.repeats, given.verify)
    with processes.joined(flags.coordinates()):
        if is_cross_validation(given.workdir):
            if given["split"].present or given["checkpoint"].present:
                raise UserError(
                    f"--workdir={given.workdir} is a cross-validation, judged out of fold at each fold's best "
                    "checkpoint: leave out --split and --checkpoint, or judge one fold with "
                    f"--workdir={given.workdir}/fold_0"
                )
            cross_validation.evaluate(given.workdir, dataset=given.dataset, paths=paths, wishes=wishes)
        else:
            evaluate(
                given.workdir,
                split=given.split,
                checkpoint=given.checkpoint,
                dataset=given.dataset,
                paths=paths,
                wishes=wishes,
            )


if __name__ == "__main__":
    flags.define_workdir()
    flags.define_data()
    flags.define_judged()
    flags.define_wishes()
    flags.define_hosts()
    command.run(main)
