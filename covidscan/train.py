"""Train a network: records -> batches -> steps -> checkpoints.

  python -m covidscan.train --flagfile=full.flags --workdir=runs/full

The same command resumes a run where its last checkpoint left it.
"""

import os

# The collectives of several CPU devices wait for each other in one pool of threads: fewer threads than devices
# would wait for ever. JAX reads this when it is imported.
os.environ.setdefault("NPROC", "16")

from covidscan import command, flags


def main() -> None:
    """Read the flags and train."""
    from covidscan.training import train_and_evaluate  # imports JAX: not before --help has been answered

    train_and_evaluate(flags.config(), flags.data_paths(), flags.FLAGS.workdir)


if __name__ == "__main__":
    flags.define_config()
    flags.define_workdir()
    flags.define_data()
    command.run(main)
