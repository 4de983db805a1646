"""Train a network: records -> batches -> steps -> checkpoints.

  python -m covidscan.train --flagfile=full.flags --workdir=runs/full

The same command resumes a run where its last checkpoint left it.
"""

import os

# The collectives of several CPU devices wait for each other in one pool of threads: fewer threads than devices
# would wait for ever.
os.environ.setdefault("NPROC", "16")

from covidscan import command, flags  # noqa: E402


def train_and_evaluate(config: flags.Config, paths: flags.DataPaths, workdir: str) -> None:
    """Train from where the workdir's last checkpoint is to the end, evaluating on the validation studies on the way.

    Args:
      config: what to train.
      paths: where the data are.
      workdir: the run.

    Raises:
      UserError: something that the user can mend is in the way.
    """
    # JAX takes a second to import: not before --help has been answered.
    from covidscan import parallel, plots
    from covidscan.checkpoint import Checkpoints
    from covidscan.data import load_studies
    from covidscan.experiment import create_experiment
    from covidscan.loop import Trainer
    from covidscan.run_log import RunLog
    from covidscan.workdir import describe, open_run

    parallel.share_of_batch(config.batch_size)  # a batch that does not fit is told of before data are built
    studies = load_studies(config, paths)
    print_counts(studies)
    experiment = create_experiment(
        config, len(studies.labels.names), studies.volume_shape, len(studies.parts["train"])
    )
    open_run(workdir, describe(config, studies))
    checkpoints = Checkpoints(workdir, config.keep)
    trainer = Trainer.start(experiment, studies, checkpoints)
    log = RunLog(workdir, trainer.step, experiment.num_steps)
    try:
        trainer.run(log)
    finally:
        log.close()
        checkpoints.close()
    plots.learning_curves(log.path, log.path.with_name("curves.png"))
    print(f"Trained to step {trainer.step}. {trainer.summary()}")
    print(f"Learning curves: {log.path.with_name('curves.png')}")
    print(f"Judge it on the test studies: python -m covidscan.evaluate --workdir={workdir} --data_dir={paths.data_dir}")


def print_counts(studies) -> None:
    """Print the number of scans of each label in each part."""
    print(f"{studies.dataset}: {len(studies.study_ids)} studies, {len(studies.skipped)} skipped")
    for part in studies.parts:
        counts = ", ".join(f"{count} {name}" for name, count in studies.counts(part).items())
        print(f"  CT scans for {part}: {counts}")


def main() -> None:
    """Read the flags and train."""
    train_and_evaluate(flags.config(), flags.data_paths(), flags.FLAGS.workdir)


if __name__ == "__main__":
    flags.define_config()
    flags.define_workdir()
    flags.define_data()
    command.run(main)
