"""Prediction of studies without a reference standard: NIfTI files, DICOM series, folders of these.

python -m covidscan.predict --workdir=runs/full scan.nii.gz dicom_folder studies/*
python -m covidscan.predict --workdir=runs/full --explain --output_dir=predictions studies/*
python -m covidscan.predict --workdir=runs/full --save_maps --output_dir=predictions studies/*
"""

import functools
import importlib.util
import sys

from covidscan.cli import command, flags
from tfds_mosmed.cores import usable_cores

SOME_FAILED = 3  # exit status
# Flag -> ending of a file that it writes for each study.
WRITTEN = {"explain": ".html", "save_maps": "_lungs.json", "dicom": "_sr.dcm"}


def main(paths: list[str]) -> int:
    """Read the flags and predict."""
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from covidscan.prediction.predict_studies import predict
    from covidscan.prediction.source import ModelSource
    from tfds_mosmed.errors import UserError

    given = flags.FLAGS
    if bool(given.workdir) == bool(given.model):
        raise UserError("--workdir, --model: give exactly one of them, the run or the exported model that predicts")
    for name in (name for name in (*WRITTEN, "embeddings") if given[name].value):
        if not given.output_dir:
            raise UserError(f"--{name} writes files: give --output_dir too")
        if given.model:
            raise UserError(
                f"--{name}: --model={given.model} holds probabilities only: use --workdir, the run it was exported from"
            )
    if given.dicom and importlib.util.find_spec("highdicom") is None:
        raise UserError("--dicom needs highdicom: pip install highdicom")
    if given.model and given["checkpoint"].present:
        raise UserError("--checkpoint applies to --workdir: an exported model holds a single checkpoint")
    if given.model and given.tta:
        raise UserError(f"--tta={given.tta} is part of an exported model: python -m covidscan.export takes it")
    if given.workdir and given.expect_sha256 is not None:
        raise UserError("--expect_sha256 applies to --model: the checkpoints of a --workdir are not checked by it")
    explainer, endings = None, [ending for name, ending in WRITTEN.items() if given[name].value]
    if endings:
        from covidscan.explanation.explainer import Explainer

        explainer = functools.partial(Explainer, saliency=given.explain, involvement=given.save_maps, dicom=given.dicom)
    source = ModelSource(given.workdir or (), given.model, given.checkpoint, given.expect_sha256)
    total, failed = predict(
        paths,
        source,
        tta=given.tta or "",
        prevalence=given.prevalence,
        explainer=explainer,
        endings=endings,
        embeddings=given.embeddings,
        output_dir=given.output_dir,
        form=given.format,
    )
    if failed:
        print(f"{failed} of {total} studies could not be predicted", file=sys.stderr)
    return SOME_FAILED if failed else 0


if __name__ == "__main__":
    flags.define_predict()
    # One thread per core would take the cores from the processes that read studies.
    command.run(main, takes="PATH …", needs=["workdir|model"], threads=max(1, usable_cores() // 2))
