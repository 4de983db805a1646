"""Predict studies that have no reference standard: NIfTI files, DICOM series, folders of these.

python -m covidscan.predict --workdir=runs/full scan.nii.gz dicom_folder studies/*
python -m covidscan.predict --workdir=runs/full --explain --output_dir=answers studies/*
"""

import os
import sys

os.environ.setdefault("NPROC", "16")  # see covidscan.train

from covidscan import flags

SOME_FAILED = 3  # exit status


def main(paths: list[str]) -> int:
    """Read the flags and predict."""
    # These import JAX: not before --help has been answered.
    from covidscan import prediction_run

    given = flags.FLAGS
    if bool(given.workdir) == bool(given.model):
        raise flags.flags.IllegalFlagValueError("give --workdir or --model: one of them answers")
    if given.explain and not given.output_dir:
        raise flags.flags.IllegalFlagValueError("--explain writes files: give --output_dir too")
    failed, total = prediction_run.predict(paths, ...)
    if failed:
        print(f"{failed} of {total} studies could not be read: their rows say why", file=sys.stderr)
    return SOME_FAILED if failed else 0
