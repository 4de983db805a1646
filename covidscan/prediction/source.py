"""Location of a trained model: the workdirs of runs, or the folder of an exported model."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from covidscan.metrics.thresholds import is_explained
from covidscan.runs.workdir import first_run, grid_of, read_run
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid

if TYPE_CHECKING:
    from covidscan.prediction.predictor import Explainer, Predictor
    from covidscan.trained_models.ensemble import Ensemble

# JAX is imported lazily, so that the grid is known, and workers read studies, while it loads.


class ModelSource(NamedTuple):
    """Location of a model.

    Attributes:
      workdirs: of runs and cross-validations, which form one ensemble; empty for an exported model.
      model: folder of an exported model, or None.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      expect_sha256: hash that an exported model must have; None: any.
    """

    workdirs: Sequence[str]
    model: str | None = None
    checkpoint: str = "best"
    expect_sha256: str | None = None

    @classmethod
    def of(
        cls, paths: Sequence[str | os.PathLike[str]], checkpoint: str = "best", expect_sha256: str | None = None
    ) -> "ModelSource":
        """Recognise whether paths are workdirs or the folder of an exported model.

        Raises:
          UserError: there is no path, or an empty one; or a hash is expected of a workdir.
        """
        names = [os.fspath(path) for path in paths]
        if not all(names) or not names:
            raise UserError("no model given: name the workdir of a run, or the folder of an exported model")
        if len(names) == 1 and Path(names[0], "model.json").exists():
            return cls((), names[0], expect_sha256=expect_sha256)
        if expect_sha256 is not None:
            raise UserError(f"{names[0]} is not an exported model, to which alone expect_sha256 applies")
        return cls(names, None, checkpoint)

    def grid(self) -> Grid:
        """Read the grid that studies are prepared on.

        Raises:
          UserError: there is no such run or model.
        """
        if self.model:
            from covidscan.trained_models import exported

            return Grid.parse(exported.read_description(Path(self.model), self.expect_sha256)["model"]["grid"])
        return Grid.parse(grid_of(read_run(first_run(self.workdirs[0]))))

    def load(
        self,
        *,
        tta: str = "",
        prevalence: float | None = None,
        explainer: "Callable[[Ensemble], Explainer] | None" = None,
        embeds: bool = False,
    ) -> "Predictor":
        """Load the model; it is compiled at its first prediction.

        Args:
          tta: set of views over which logits are averaged, see `models.views`; "": none.
          prevalence: to which predictions are adapted; None: to none.
          explainer: creates the explainer of the loaded networks; not called for an exported model.
          embeds: whether the features of studies are computed too, which those of an exported model are not.

        Raises:
          UserError: there is no such run or model, or it cannot be used.
        """
        from covidscan.distributed import devices
        from covidscan.prediction.predictor import Predictor

        devices.enable_compilation_cache()
        if self.model:
            from covidscan.trained_models import exported

            if tta:
                raise UserError(f"{self.model}: test-time augmentation is part of an exported model: export with --tta")
            model = exported.load(self.model, self.expect_sha256)
            try:
                return Predictor(model.info, model.probabilities, sha256=model.sha256, prevalence=prevalence)
            except UserError:  # of the prevalence
                raise
            except (TypeError, ValueError) as error:  # of reference ranges that do not fit
                path = Path(self.model, exported.DESCRIPTION)
                raise UserError(f'{path}: its entry "model" {error}: export again') from error
        from covidscan.trained_models import ensemble
        from covidscan.trained_models.embedder import Embedder

        networks = ensemble.load(self.workdirs, self.checkpoint, tta)
        explains = explainer(networks) if explainer and is_explained(networks.info.task) else None
        return Predictor(
            networks.info,
            networks.compiled(),
            explainer=explains,
            embedder=Embedder(networks) if embeds else None,
            sha256=networks.sha256(),
            prevalence=prevalence,
        )
