"""Sensitivity to lesions that are inserted into your own scans: how small a lesion does a network detect in them?

python -m covidscan.detectability --workdir=runs/full negative_scans/*
python -m covidscan.detectability --workdir=runs/full --diameters=5,10,20 --densities=-550 --places=8 negative_scans/*
python -m covidscan.detectability --workdir=runs/full --kinds=reversed_halo --densities=-550 negative_scans/*

Paints one lesion at a time into each scan, with the scan's own noise, sharpness and slice thickness, and predicts the
scan with and without it. Give scans without disease. It measures sensitivity to insertions, not accuracy. Writes
WORKDIR/detectability/. The next evaluation of that checkpoint at the same threshold shows it in its report; one with
--tta or --prevalence has another threshold, and that of a cross-validation or of several runs does not show it.
"""

import sys

from covidscan.cli import command, flags
from tfds_mosmed.cores import usable_cores

SOME_FAILED = 3  # exit status


def main(paths: list[str]) -> int:
    """Read the flags, insert lesions into each scan, write and print what was detected."""
    lesions = flags.lesions()  # checked before anything slow
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from etils import epath

    from covidscan.distributed import devices
    from covidscan.evaluation.detectability import measure_detectability, write_detectability
    from covidscan.metrics.detectability import FOLDER
    from covidscan.prediction.reading import Refusal
    from covidscan.report.detectability import table
    from covidscan.trained_models import ensemble
    from tfds_mosmed import storage
    from tfds_mosmed.errors import UserError, one_line
    from tfds_mosmed.progress import progress
    from tfds_mosmed.scans.find import find_studies

    given = flags.FLAGS
    studies = find_studies(paths)
    devices.enable_compilation_cache()
    network = ensemble.load([given.workdir], given.checkpoint)
    if network.info.threshold is None:
        raise UserError(
            f"--workdir={given.workdir}: --task={network.info.task} has no threshold at which a lesion is detected: "
            "give a run of --task=binary or severity"
        )
    if given.output_dir:
        storage.check(given.output_dir)
    folder = epath.Path(given.output_dir or epath.Path(given.workdir) / FOLDER)
    storage.make_folder(folder)  # before anything slow
    measured = measure_detectability(network, studies, lesions, given.places, usable_cores())
    title = f"Inserting up to {len(lesions) * given.places} lesions, one at a time"
    outcomes = list(progress(measured, len(studies), title))
    unusable = [each for each in outcomes if isinstance(each, Refusal)]
    for each in unusable:
        print(one_line(each.reason), file=sys.stderr)
    if not any(each.insertions for each in outcomes if not isinstance(each, Refusal)):
        raise UserError(
            f"no lesion could be inserted into any of {len(outcomes)} scans: "
            "give chest CT of clear lungs, or --densities further above theirs"
        )
    print(table(write_detectability(folder, network, outcomes, lesions)))
    print(f"\nWritten to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return SOME_FAILED if unusable else 0


if __name__ == "__main__":
    flags.define_workdir()
    flags.define_detectability()
    command.run(main, takes="SCAN …", needs=("workdir",), threads=max(1, usable_cores() // 2))
