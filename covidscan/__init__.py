"""Training and evaluation of 3D networks on chest CT with JAX."""

import os
import signal
import sys

# While `python -m covidscan.COMMAND` is being found, its name is "-m". Until the command has its own handler of Ctrl-C,
# which its imports precede, that ends it in one line too.
if (
    os.path.basename("".join(sys.argv[:1])) in ("-m", "covidscan")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped before it began\n"), os._exit(130)))

from collections.abc import Sequence
from typing import TYPE_CHECKING

from covidscan.version import __version__ as __version__

if TYPE_CHECKING:
    from covidscan.prediction.predictor import Predictor


def load(
    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    checkpoint: str = "best",
    tta: str = "",
    prevalence: float | None = None,
    expect_sha256: str | None = None,
) -> "Predictor":
    """Load a trained model for prediction.

        predictor = covidscan.load("runs/demo")
        predictor("scan.nii.gz").probability
        predictor(hu, spacing_mm=(8.0, 0.7, 0.7))

    Args:
      model: workdir of a run or of a cross-validation, or several workdirs, which form one ensemble; or folder of an
        exported model. That is an executable program: load only one whose origin you trust.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      tta: test-time augmentation, "mirror" or "full" as of --tta; an exported model has its own.
      prevalence: share of diseased patients of a clinic, to which predictions are adapted; None: to none.
      expect_sha256: SHA-256 that an exported model must have, as its export printed it; None: any.

    Returns:
      A function that predicts one study, given as a path or as an array of HU with its spacing; it returns a
      `covidscan.prediction.prediction.Prediction`.

    Raises:
      UserError: there is no such run or model; the message names the remedy.
    """
    # Imported lazily: `--help` of a command must not wait for JAX.
    from covidscan.explanation.explainer import Explainer
    from covidscan.prediction.source import ModelSource

    paths = [model] if isinstance(model, str | os.PathLike) else model
    return ModelSource.of(paths, checkpoint, expect_sha256).load(tta=tta, prevalence=prevalence, explainer=Explainer)
