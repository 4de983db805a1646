"""Example: use an exported model without CovidScan. This file is in the folder of model.json.

python predict_volume.py scan.nii.gz dicom_folder
python predict_volume.py VOLUMES.npy

Prints the calibrated probability of each label, or the predicted number, one line per study or volume; warnings go to
stderr. A scan is read and prepared by preparation.zip, which holds the modules of CovidScan that training used.
VOLUMES.npy holds int16 HU (batch, slice, row, column), prepared as described in model.json, with any batch size. Needs:
pip install jax flatbuffers, for scans also nibabel scipy, for DICOM also pydicom python-gdcm.
The model, preparation.zip and this file are executable programs: use them only if you trust their origin.
"""

import json
import sys
from pathlib import Path

import numpy as np
from jax import export


def probabilities(volumes: np.ndarray, model: Path) -> np.ndarray:
    """Return probabilities (batch, label), or predicted numbers (batch, 1), float32.

    Args:
      volumes: (batch, slice, row, column), int16 HU.
      model: the folder of model.json.
    """
    computation = export.deserialize(bytearray((model / "model.stablehlo").read_bytes()))
    return np.asarray(computation.call(dict(np.load(model / "weights.npz")), volumes))


def prepare_scan(study: str, model: Path) -> np.ndarray:
    """Read a scan and prepare it for the model: (1, slice, row, column), int16 HU.

    Args:
      study: a NIfTI file, a DICOM file of many frames or the folder of a DICOM series.
      model: the folder of model.json.

    Raises:
      ValueError: the study cannot be used; the message names it and the remedy.
    """
    sys.path.insert(0, str(model / "preparation.zip"))
    from tfds_mosmed.preprocessing.grid import Grid
    from tfds_mosmed.preprocessing.lungs import first_with_lungs
    from tfds_mosmed.preprocessing.prepare import prepare
    from tfds_mosmed.scans.read import read_scan

    if study.lower().endswith(".zip"):
        raise ValueError(f"{study}: is an archive; unpack it, and give the folder or file")
    grid = Grid.parse(json.loads((model / "model.json").read_text())["model"]["grid"])
    prepared = prepare(read_scan(study, choose_series=first_with_lungs), grid)
    for line in prepared.warnings:
        print(f"{study}: {line}", file=sys.stderr)
    return prepared.volume[None]


def main(studies: list[str], model: Path) -> int:
    """Print the probabilities of studies or volumes; return the exit status."""
    if not studies:
        print((__doc__ or "").partition("\n\n")[2], file=sys.stderr)
        return 2
    num_failed = 0
    for study in studies:
        try:
            volumes = np.load(study) if study.endswith(".npy") else prepare_scan(study, model)
            rows = probabilities(volumes, model)  # of volumes of another type or shape, ValueError
        except (ImportError, OSError, ValueError) as error:
            missing = " (see the packages that this file needs)" if isinstance(error, ImportError) else ""
            reason = str(error).partition("\n")[0]
            named = reason if study in reason else f"{study}: {reason}"
            print(f"{named}{missing}", file=sys.stderr)
            num_failed += 1
            continue
        for row in rows:
            print(*row)
    return 3 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent))
