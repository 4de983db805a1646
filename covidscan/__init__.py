"""Training and judging 3D networks on chest CT with JAX."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from covidscan.version import __version__ as __version__

if TYPE_CHECKING:
    from covidscan.prediction.predictor import Predictor


def load(
    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, checkpoint: str = "best", tta: bool = False
) -> "Predictor":
    """Load what answers for new studies.

        predictor = covidscan.load("runs/demo")
        predictor("scan.nii.gz").probability
        predictor(hu, spacing_mm=(8.0, 0.7, 0.7))

    Args:
      model: workdir of a run; of a cross-validation, or several workdirs, whose networks answer together; or folder of
        an exported model.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      tta: whether the answer is the mean over each study and its mirror image.

    Returns:
      A function of one study, a path or an array of HU with its spacing, that gives a `prediction.Prediction`.

    Raises:
      UserError: there is no such run or model; the message says the way out.
    """
    from covidscan.prediction.source import ModelSource  # a command that asks for help alone must not wait for JAX

    paths = [model] if isinstance(model, str | os.PathLike) else model
    return ModelSource.of(paths, checkpoint).load(tta=tta)
