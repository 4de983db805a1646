"""Training of a network: records -> batches -> steps -> checkpoints.

  python -m covidscan.train --flagfile=full.flags --workdir=runs/full

The same command resumes a run from its last checkpoint. Exit status: 0 trained to the end; 75 stopped by SIGTERM and
saved, run it again; 130 stopped by a person (Ctrl-C, or a file WORKDIR/stop) and saved; 76 another process of the job
was lost, hangs or never came (134 where JAX aborts first); 1 an error of usage or data; 2 an unknown or invalid flag.
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and train."""
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from covidscan.distributed import processes
    from covidscan.distributed.preemption import StopRequests
    from covidscan.evaluation.cross_validation import cross_validate
    from covidscan.trained_models.transfer import read_source
    from covidscan.training.loop import train_and_evaluate
    from tfds_mosmed import storage

    config, paths = flags.config(), flags.data_paths()
    storage.check(flags.FLAGS.workdir)
    train = cross_validate if flags.all_folds() else train_and_evaluate
    with (
        processes.joined(flags.process_group(), flags.FLAGS.peer_timeout),
        StopRequests(flags.FLAGS.workdir) as stop,
    ):
        train(config, paths, flags.FLAGS.workdir, stop, flags.FLAGS.tracker, read_source)
        if train is train_and_evaluate and processes.is_process_0():
            print(
                f"To evaluate it on the test studies:\n  python -m covidscan.evaluate --workdir={flags.FLAGS.workdir}"
            )


if __name__ == "__main__":
    flags.define_config()
    flags.define_workdir()
    flags.define_data()
    flags.define_process_group()
    flags.define_tracker()
    command.run(main, needs=["workdir"])
