"""Earlier networks, as `--init_from` names them: the best checkpoint of a run, or an exported model."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from covidscan.data import leakage
from covidscan.data.leakage import DEVELOPMENT_PARTS, StudyKeys
from covidscan.runs.workdir import is_cross_validation, run_id
from covidscan.trained_models import exported, restore
from covidscan.training import initialise
from covidscan.training.initialise import Source
from tfds_mosmed.errors import UserError


def read_source(path: str) -> Source:
    """Read an earlier network.

    Args:
      path: workdir of a run, or folder of an exported model.

    Raises:
      UserError: there is none, or it is several networks.
    """
    initialise.check_exists(path)
    if Path(path, exported.DESCRIPTION).exists():
        return _of_exported(path)
    if is_cross_validation(path):
        raise UserError(f"--init_from={path} is a cross-validation: name one of its folds, as in {path}/fold_0")
    member = restore.restore(path)
    variables: Any = traverse_util.flatten_dict(member.variables, sep="/")
    return Source(
        path,
        variables,
        member.run["data"]["dataset"],
        f"{run_id(member.workdir)}{leakage.OF_RUN}{member.step}",
        _studies(member),
        _unknown(member.run.get("initialisation")),
    )


def _studies(member: restore.RestoredModel) -> dict[str, StudyKeys]:
    """Return the keys of the studies that developed a network, and of those that developed the one it began with."""
    own = leakage.read(member.workdir)
    before = leakage.read_pretraining(member.workdir, member.run.get("initialisation"))
    found = {}
    for part in DEVELOPMENT_PARTS:
        found[part] = (
            StudyKeys(*(one + other for one, other in zip(own[part], before[part], strict=True)))
            if before
            else own[part]
        )
    return found


def _unknown(began: dict[str, Any] | None) -> tuple[str, ...]:
    """Return the data sets of the exported models that a run began with, itself or by way of others.

    Args:
      began: "initialisation" of its config.json; earlier versions do not list them.
    """
    if began is None:
        return ()
    of_exported = [] if leakage.OF_RUN in began["identity"] else [began["trained_on"]]
    return tuple(began.get("unknown") or of_exported)


def _of_exported(path: str) -> Source:
    model = exported.load(path)
    if any(not name.startswith("0/") for name in model.weights):
        raise UserError(f"--init_from={path} is an ensemble of several networks: name the run of one of them")
    weights = {name.removeprefix("0/"): np.asarray(value) for name, value in model.weights.items()}
    return Source(path, weights, model.info.trained_on, model.sha256, None)
