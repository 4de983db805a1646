"""Ensemble of trained networks, each restored from its workdir: one run, or the folds of a cross-validation."""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from covidscan.data import domain_shift, leakage
from covidscan.data.domain_shift import ReferenceRanges
from covidscan.metrics.results import OperatingPoint
from covidscan.models import heads
from covidscan.models.views import SETS, views
from covidscan.runs.operating_points import (
    mean_grade_thresholds,
    mean_prevalence,
    mean_threshold,
    with_out_of_fold,
)
from covidscan.runs.workdir import grid_of, is_cross_validation, run_id
from covidscan.trained_models import restore
from covidscan.trained_models.model_info import ModelInfo
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from tfds_mosmed.errors import UserError


class Ensemble(NamedTuple):
    """One or several networks of the same task, labels, grid and windows.

    Attributes:
      members: the networks.
      operating_points: the frozen operating point of each network.
      info: task, labels, grid and windows; threshold and description of the ensemble.
    """

    members: Sequence[RestoredModel]
    operating_points: Sequence[OperatingPoint]
    info: ModelInfo

    def probabilities(self, volumes: jax.typing.ArrayLike) -> jax.Array:
        """Return the mean of the networks' probabilities after recalibration, of regression of their values.

        It is a pure function, to be compiled.

        With test-time augmentation, a network's logits are averaged over the views before.

        Args:
          volumes: (batch, slice, row, column), HU, on the grid.

        Returns:
          (batch, label), float32.
        """
        probabilities = [
            heads.probabilities(
                self.info.task,
                heads.recalibrate(
                    self.info.task,
                    _mean_logits(member, volumes, self.info.tta),
                    point.temperature,
                    point.offsets,
                ),
                member.experiment.scaling,
            )
            for member, point in zip(self.members, self.operating_points, strict=True)
        ]
        return jnp.mean(jnp.stack(probabilities), axis=0)

    def sha256(self) -> str:
        """Compute the SHA-256 of the networks' parameters, and of threshold, recalibration and scaling to 6 digits."""
        info = self.info
        points = [info.threshold or 0.0, *info.temperatures, *itertools.chain(*info.offsets), *info.grade_thresholds]
        if info.task == "regression":
            points += itertools.chain(*(member.experiment.scaling for member in self.members))
        digest = hashlib.sha256(" ".join(f"{number:.6f}" for number in points).encode())
        for leaf in jax.tree.leaves([member.variables for member in self.members]):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def compiled(self) -> Callable[[np.ndarray], jax.Array]:
        """Compile `probabilities`, once per batch size, with the networks' variables on the device."""
        variables = jax.device_put([member.variables for member in self.members])

        def probabilities(variables: list[dict], volumes: jax.Array) -> jax.Array:
            members = [one._replace(variables=own) for one, own in zip(self.members, variables, strict=True)]
            return self._replace(members=members).probabilities(volumes)

        return functools.partial(jax.jit(probabilities), variables)


def of_network(member: RestoredModel, point: OperatingPoint) -> Ensemble:
    """Return an ensemble of one network."""
    return Ensemble([member], [point], _info(member, point))


def _mean_logits(member: RestoredModel, volumes: jax.typing.ArrayLike, tta: str) -> jax.Array:
    """Average a network's logits over the views, which one program computes in turn."""
    of = functools.partial(step.logits, member.experiment.config, member.experiment.model, member.variables)
    if not tta:
        return of(volumes)
    return jax.lax.map(of, jnp.stack([view.of(jnp.asarray(volumes)) for view in views(tta)])).mean(axis=0)


def load(workdirs: Sequence[epath.PathLike], checkpoint: str = "best", tta: str = "") -> Ensemble:
    """Restore the networks of runs and of cross-validations.

    Args:
      workdirs: of runs and cross-validations; a cross-validation contributes the networks of its folds.
      checkpoint: of each run: "best" by validation AUROC, "latest" or a step.
      tta: set of views over which logits are averaged, see `models.views`; "": none.

    Raises:
      UserError: there is no such run or checkpoint, or the networks differ in task, labels, grid or windows.
    """
    if tta and tta not in SETS:
        raise UserError(f"tta={tta}: give {' or '.join(SETS)}")
    members: list[RestoredModel] = []
    points: list[OperatingPoint] = []
    for workdir in workdirs:
        networks = _networks(workdir, checkpoint)
        # Nothing is written: the workdir of a trained network may be read-only.
        own = [network.operating_point(network.built_dataset, freeze=False, tta=tta) for network in networks]
        members += networks
        is_ensemble = is_cross_validation(workdir) and checkpoint == "best"
        points += with_out_of_fold(workdir, own, restore.checksums(networks)) if is_ensemble else own
    check_alike(members)
    if len(members) == len(workdirs) > 1:
        points = with_out_of_fold(folder(members), points, restore.checksums(members))
    infos = [_info(member, point) for member, point in zip(members, points, strict=True)]
    first = infos[0]
    if len(infos) == 1:
        return Ensemble(members, points, first)
    info = dataclasses.replace(
        first,
        threshold=mean_threshold(points),
        temperatures=tuple(point.temperature for point in points),
        offsets=tuple(tuple(point.offsets) for point in points) if any(point.offsets for point in points) else (),
        grade_thresholds=tuple(mean_grade_thresholds(points)),
        criterion=first.criterion if len({info.criterion for info in infos}) == 1 else "",
        prevalence=mean_prevalence(points),
        typical=_merge([info.typical for info in infos]),
        described=f"{first.described} Probability and threshold are the means of {len(infos)} networks'.",
    )
    return Ensemble(members, points, info)


def folder(members: Sequence[RestoredModel]) -> epath.Path:
    """Return where the threshold of an ensemble of runs is frozen: a folder in the workdir of one of them.

    Its name is the same in whatever order they are named.
    """
    names = sorted(f"{run_id(member.workdir)} {member.step}" for member in members)
    name = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    folders = [member.workdir / "ensembles" / name for member in members]
    return next((each for each in folders if each.exists()), folders[0])


def check_alike(members: Sequence[RestoredModel]) -> None:
    """Check that networks can be one ensemble.

    Raises:
      UserError: they differ in task, labels, grid or windows, or are one run that is named twice.
    """
    places = [os.path.realpath(member.workdir) for member in members]
    for place, member in zip(places, members, strict=True):
        if places.count(place) > 1:
            raise UserError(f"--workdir: {member.workdir} is there twice: name each run once")
    first, *others = [
        {
            "task": member.experiment.config.task,
            "label_names": tuple(member.run["data"]["label_names"]),
            "grid": grid_of(member.run),
            "windows": member.experiment.config.windows,
        }
        for member in members
    ]
    for member, own in zip(members[1:], others, strict=True):
        for name, value in own.items():
            if value != first[name]:
                raise UserError(
                    f"--workdir: {members[0].workdir} and {member.workdir} cannot be one ensemble, their {name} differ "
                    f"({first[name]}, {value}): give runs of one task, grid and --windows"
                )
    _check_positives(members)
    _check_different(members)


def _check_different(members: Sequence[RestoredModel]) -> None:
    """Check that no network is there twice, as that of a run and of a copy of its folder: it would count for two."""
    first: dict[str, RestoredModel] = {}
    for member in members:
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(member.variables):
            digest.update(np.ascontiguousarray(leaf).data)
        other = first.setdefault(digest.hexdigest(), member)
        if other is not member:
            raise UserError(f"--workdir: {other.workdir} and {member.workdir} hold the same network: name it once")


def _check_positives(members: Sequence[RestoredModel]) -> None:
    """Check that binary networks call the same categories positive, as far as they were trained on the same ones."""
    first = members[0]
    if first.experiment.config.task != "binary":
        return
    for member in members[1:]:
        runs = member.run["data"], first.run["data"]
        families = [run["dataset"].partition("/")[0] for run in runs]
        alike = runs[0]["fingerprint"] == runs[1]["fingerprint"] or families[0] == families[1] in leakage.GLOBAL_IDS
        negative = [{name.lower() for name in each.experiment.config.negative_categories} for each in (first, member)]
        if alike and negative[0] != negative[1]:
            raise UserError(
                f"--workdir: {first.workdir} and {member.workdir} cannot be one ensemble, different studies are "
                f"positive in them: their --negative_categories are {', '.join(sorted(negative[0]))} and "
                f"{', '.join(sorted(negative[1]))}"
            )


def _networks(workdir: epath.PathLike, checkpoint: str) -> list[RestoredModel]:
    if is_cross_validation(workdir):
        return restore.restore_folds(workdir, checkpoint)
    return [restore.restore(workdir, checkpoint)]


def _merge(typical: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Merge the reference ranges of all networks; None where those of one network are not known."""
    known = [ReferenceRanges.from_json(one) for one in typical if one is not None]
    return domain_shift.merge(known).to_json() if len(known) == len(typical) else None


def _info(member: RestoredModel, point: OperatingPoint) -> ModelInfo:
    config, data = member.experiment.config, member.run["data"]
    typical = domain_shift.read(member.workdir)
    return ModelInfo(
        task=config.task,
        label_names=tuple(data["label_names"]),
        threshold=point.threshold,
        temperatures=(point.temperature,),
        offsets=(tuple(point.offsets),) if point.offsets else (),
        grade_thresholds=tuple(point.grade_thresholds),
        # Without a known prevalence nothing depends on it.
        criterion=point.criterion if point.prevalence is not None else "",
        prevalence=point.prevalence,
        tta=point.tta,
        grid=grid_of(member.run),
        windows=config.windows,
        trained_on=data["dataset"],
        described=point.description,
        typical=typical.to_json() if typical else None,
    )
