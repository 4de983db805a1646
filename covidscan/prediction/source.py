"""What answers for new studies: the networks of workdirs, or a model that was exported."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from covidscan.runs.workdir import grid_of, is_cross_validation, of_fold, read_run
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

if TYPE_CHECKING:
    from covidscan.prediction.predictor import Predictor

# What follows imports JAX where it is needed, so that the grid is known, and studies are read, before it is there.


class ModelSource(NamedTuple):
    """Where a model is.

    Attributes:
      workdirs: of runs and cross-validations, whose networks answer together; empty for an exported model.
      model: folder of an exported model, or None.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
    """

    workdirs: Sequence[str]
    model: str | None = None
    checkpoint: str = "best"

    @classmethod
    def of(cls, paths: Sequence[str | os.PathLike[str]], checkpoint: str = "best") -> "ModelSource":
        """Tell workdirs from an exported model."""
        names = [os.fspath(path) for path in paths]
        if not all(names) or not names:
            raise UserError("no model: name a run's workdir, or the folder of an exported model")
        if len(names) == 1 and Path(names[0], "model.json").exists():
            return cls((), names[0])
        return cls(names, None, checkpoint)

    def grid(self) -> Grid:
        """Tell what studies are to be brought to.

        Raises:
          UserError: there is no such run or model.
        """
        if self.model:
            from covidscan.trained_models import exported

            return Grid.parse(exported.read_description(Path(self.model))["model"]["grid"])
        first = self.workdirs[0]
        return Grid.parse(grid_of(read_run(of_fold(first, 0) if is_cross_validation(first) else first)))

    def load(self, *, tta: bool = False) -> "Predictor":
        """Load the model; it is compiled at its first answer.

        Raises:
          UserError: there is no such run or model, or it cannot be used.
        """
        from covidscan.distributed import devices
        from covidscan.prediction.predictor import Predictor

        devices.keep_compiled_programs()
        if self.model:
            from covidscan.trained_models import exported

            model = exported.load(self.model)
            return Predictor(model.info, model.probabilities, tta=tta)
        from covidscan.explanation import saliency
        from covidscan.trained_models import ensemble

        networks = ensemble.load(self.workdirs, self.checkpoint)
        return Predictor(networks.info, networks.compiled(), tta=tta, explainer=saliency.SaliencyMapper(networks))
