"""Trained networks that answer together, each restored from its workdir: one run, the folds of a cross-validation."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from covidscan.data import domain_shift
from covidscan.data.domain_shift import ReferenceRanges
from covidscan.models import heads
from covidscan.runs.operating_points import OperatingPoint
from covidscan.runs.workdir import grid_of, is_cross_validation
from covidscan.trained_models import restore
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from tfds_mosmed.errors import UserError


class Ensemble(NamedTuple):
    """One or several networks of the same task, labels, grid and windows.

    Attributes:
      members: the networks.
      choices: what is frozen for each.
      info: what they were made for.
    """

    members: Sequence[RestoredModel]
    choices: Sequence[OperatingPoint]
    info: ModelInfo

    def probabilities(self, volumes: jax.typing.ArrayLike) -> jax.Array:
        """Give the mean of the networks' probabilities after temperature scaling; pure, to be compiled.

        Args:
          volumes: (batch, slice, row, column), HU, on the grid.

        Returns:
          (batch, label), float32.
        """
        said = [
            heads.probabilities(
                self.info.task,
                step.logits(member.experiment.config, member.experiment.model, member.variables, volumes)
                / chosen.temperature,
            )
            for member, chosen in zip(self.members, self.choices, strict=True)
        ]
        return jnp.mean(jnp.stack(said), axis=0)

    def compiled(self) -> Callable[[np.ndarray], jax.Array]:
        """Compile `probabilities`, for each batch size once; the networks' numbers are put onto the device."""
        variables = jax.device_put([member.variables for member in self.members])

        def probabilities(variables: list[dict], volumes: jax.Array) -> jax.Array:
            members = [one._replace(variables=own) for one, own in zip(self.members, variables, strict=True)]
            return self._replace(members=members).probabilities(volumes)

        return functools.partial(jax.jit(probabilities), variables)


def load(workdirs: Sequence[epath.PathLike], checkpoint: str = "best") -> Ensemble:
    """Restore the networks of runs and of cross-validations.

    Args:
      workdirs: of each; a cross-validation stands for the networks of its folds.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.

    Raises:
      UserError: there is no such run or checkpoint, or the networks do not fit each other.
    """
    members = [network for workdir in workdirs for network in _networks(workdir, checkpoint)]
    choices = [member.choices(member.own_dataset) for member in members]
    infos = [_info(member, chosen) for member, chosen in zip(members, choices, strict=True)]
    first = infos[0]
    for workdir, info in zip((member.workdir for member in members), infos, strict=True):
        for name in ("task", "label_names", "grid", "windows"):
            if getattr(info, name) != getattr(first, name):
                raise UserError(
                    f"--workdir: {members[0].workdir} and {workdir} cannot answer together, their {name} differ "
                    f"({getattr(first, name)}, {getattr(info, name)}): name runs of one task, grid and --windows"
                )
    if len(infos) == 1:
        return Ensemble(members, choices, first)
    thresholds = [info.threshold for info in infos if info.threshold is not None]
    together = ModelInfo(
        **{
            **vars(first),
            "threshold": float(np.mean(thresholds)) if thresholds else None,
            "temperatures": tuple(chosen.temperature for chosen in choices),
            "typical": _together([info.typical for info in infos]),
            "described": f"{first.described} Probability and threshold are the means of {len(infos)} networks'.",
        }
    )
    return Ensemble(members, choices, together)


def _networks(workdir: epath.PathLike, checkpoint: str) -> list[RestoredModel]:
    if is_cross_validation(workdir):
        return restore.restore_folds(workdir, checkpoint)
    return [restore.restore(workdir, checkpoint)]


def _together(typicals: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Sum up how the training studies of all networks look; None where that is not known of one of them."""
    known = [ReferenceRanges.from_json(typical) for typical in typicals if typical is not None]
    return domain_shift.merge(known).to_json() if len(known) == len(typicals) else None


def _info(member: RestoredModel, chosen: OperatingPoint) -> ModelInfo:
    config, data = member.experiment.config, member.run["data"]
    typical = domain_shift.read(member.workdir)
    return ModelInfo(
        task=config.task,
        label_names=tuple(data["label_names"]),
        threshold=chosen.threshold,
        temperatures=(chosen.temperature,),
        grid=grid_of(member.run),
        windows=config.windows,
        trained_on=data["dataset"],
        described=chosen.description,
        typical=typical.to_json() if typical else None,
    )
