"""Example: use an exported model with JAX and NumPy alone. This file is in the folder of model.json.

python predict_volume.py VOLUMES.npy

VOLUMES.npy holds int16 HU (batch, slice, row, column), prepared as described in model.json, with any batch size. Prints
the calibrated probability of each label, one line per volume. Needs: pip install jax flatbuffers.
The model, and this file, are executable programs: use them only if you trust their origin.
"""

import sys
from pathlib import Path

import numpy as np
from jax import export


def probabilities(volumes: np.ndarray, model: Path) -> np.ndarray:
    """Return probabilities (batch, label), float32.

    Args:
      volumes: (batch, slice, row, column), int16 HU.
      model: the folder of model.json.
    """
    computation = export.deserialize(bytearray((model / "model.stablehlo").read_bytes()))
    return np.asarray(computation.call(dict(np.load(model / "weights.npz")), volumes))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give VOLUMES.npy: int16 HU (batch, slice, row, column), prepared as described in model.json")
    for row in probabilities(np.load(sys.argv[1]), Path(__file__).parent):
        print(*row)
