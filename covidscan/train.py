"""Train a network: records -> batches -> steps -> checkpoints.

  python -m covidscan.train --flagfile=full.flags --workdir=runs/full

The same command resumes a run where its last checkpoint left it. Exit status: 0 trained to the end; 75 stopped early
and saved (SIGTERM, or a file WORKDIR/stop): run it again; 76, or 134 where JAX sees it first, another process of it
was lost; 1 an error that a person must mend; 2 a flag that is none.
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and train."""
    # These import JAX: not before --help has been answered.
    from covidscan.distributed import processes
    from covidscan.evaluation.cross_validation import cross_validate
    from covidscan.training.loop import train_and_evaluate

    config, paths = flags.config(), flags.data_paths()
    train = cross_validate if flags.all_folds() else train_and_evaluate
    with processes.joined(flags.coordinates()):
        train(config, paths, flags.FLAGS.workdir)


if __name__ == "__main__":
    flags.define_config()
    flags.define_workdir()
    flags.define_data()
    flags.define_hosts()
    command.run(main)
