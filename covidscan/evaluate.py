"""Evaluation of a trained run: predict every study of a split once, write metrics and a report.

python -m covidscan.evaluate --workdir=runs/full
python -m covidscan.evaluate --workdir=runs/seed0,runs/seed1,runs/seed2
python -m covidscan.evaluate --workdir=runs/full --dataset=ct_folder/256x256x40 --manual_dir=my_studies
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and evaluate."""
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from covidscan.distributed import processes
    from covidscan.evaluation import cross_validation, several_runs, verify
    from covidscan.evaluation.evaluate import evaluate
    from covidscan.metrics.provenance import EvaluationOptions
    from covidscan.runs import tracking
    from covidscan.runs.workdir import is_cross_validation
    from tfds_mosmed.errors import UserError

    given = flags.FLAGS
    elsewhere = any(given[name].present for name in ("data_dir", "manual_dir", "table"))
    where = {"dataset": given.dataset, "paths": flags.data_paths() if elsewhere else None}
    chosen = {"split": given.split, "checkpoint": given.checkpoint}
    options = EvaluationOptions(given.metadata, given.compare, given.repeats, given.prevalence, given.tta or "")
    with processes.joined(flags.process_group(), flags.FLAGS.peer_timeout):
        if len(given.workdir) > 1:
            if given.verify or given.tracker:
                raise UserError("--verify, --tracker: give one run in --workdir; those of an ensemble are taken alone")
            several_runs.evaluate_runs(given.workdir, options=options, **chosen, **where)
            return
        workdir = given.workdir[0]
        folds = is_cross_validation(workdir)
        if folds and (given["split"].present or given["checkpoint"].present):
            raise UserError(
                f"--workdir={workdir} is a cross-validation, evaluated out of fold at each fold's best "
                "checkpoint: leave out --split and --checkpoint, or evaluate one fold with "
                f"--workdir={workdir}/fold_0"
            )
        if given.tracker and (folds or given.verify):
            raise UserError(
                "--tracker gets the evaluation of one run: leave it out with --verify or a cross-validation"
            )
        tracking.check(given.tracker)
        if folds and given.verify:
            verify.verify_cross_validation(workdir, prevalence=given.prevalence, tta=options.tta, **where)
        elif folds:
            cross_validation.evaluate_cross_validation(workdir, options=options, **where)
        elif given.verify:
            verify.verify(workdir, prevalence=given.prevalence, tta=options.tta, **chosen, **where)
        else:
            folder = evaluate(workdir, options=options, **chosen, **where)
            if processes.is_process_0():
                tracking.send_evaluation(given.tracker, workdir, folder)


if __name__ == "__main__":
    flags.define_workdirs()
    flags.define_data(of_run=True)
    flags.define_evaluation()
    flags.define_process_group()
    flags.define_tracker()
    command.run(main, needs=["workdir"])
