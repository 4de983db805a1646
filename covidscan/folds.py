"""The workdir of a cross-validation: cross_validation.json says what made it, and each fold is a run like any other."""

import json

from etils import epath

from covidscan import trained
from covidscan.trained import Trained
from covidscan.workdir import CROSS_VALIDATION
from tfds_mosmed import storage


def is_cross_validation(workdir: epath.PathLike) -> bool:
    """Tell whether a workdir holds a cross-validation and not a run."""
    storage.check(workdir)
    return (epath.Path(workdir) / CROSS_VALIDATION).exists()


def member(workdir: epath.PathLike, fold: int) -> epath.Path:
    """Name the workdir of a fold's run."""
    return epath.Path(workdir) / f"fold_{fold}"


def members(workdir: epath.PathLike, checkpoint: str = "best") -> list[Trained]:
    """Restore the networks of all folds; all processes call it.

    Args:
      workdir: of the cross-validation.
      checkpoint: of each run: "best", "latest" or a step.

    Raises:
      UserError: a fold is not trained yet.
    """
    config = json.loads((epath.Path(workdir) / CROSS_VALIDATION).read_text())["config"]
    return [trained.restore(member(workdir, fold), checkpoint) for fold in range(config["num_folds"])]
