"""Judge a trained run: restore a checkpoint, predict every study of a split once, write figures and a report.

python -m covidscan.evaluate --workdir=runs/full
python -m covidscan.evaluate --workdir=runs/full --dataset=ct_folder/128x128x32 --manual_dir=my_studies
"""

import os

os.environ.setdefault("NPROC", "16")  # see covidscan.train

from covidscan import command, flags


def main() -> None:
    """Read the flags and evaluate."""
    # These import JAX: not before --help has been answered.
    from covidscan import hosts
    from covidscan.evaluation import evaluate

    given = flags.FLAGS
    elsewhere = given["data_dir"].present or given["manual_dir"].present
    with hosts.joined(flags.coordinates()):
        evaluate(
            given.workdir,
            split=given.split,
            checkpoint=given.checkpoint,
            dataset=given.dataset,
            paths=flags.data_paths() if elsewhere else None,
        )


if __name__ == "__main__":
    flags.define_workdir()
    flags.define_data()
    flags.define_judged()
    flags.define_hosts()
    command.run(main)
