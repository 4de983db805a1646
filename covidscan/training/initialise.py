"""Initialisation of a network with the parameters of an earlier one, as far as they fit."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax import traverse_util

from covidscan.data import leakage
from covidscan.data.dataset import Dataset
from covidscan.data.leakage import StudyKeys
from covidscan.training.state import TrainState
from tfds_mosmed import storage
from tfds_mosmed.errors import UserError

COLLECTIONS = ("params", "batch_stats")


def check_exists(path: str) -> None:
    """Check that the folder exists that --init_from names.

    Raises:
      UserError: it does not, or cannot be reached.
    """
    storage.check(path)
    if not epath.Path(path).is_dir():
        raise UserError(
            f"--init_from={path} is no folder: name the workdir of a run, or the folder of an exported model"
        )


class Source(NamedTuple):
    """An earlier network.

    Attributes:
      path: workdir of its run, or folder of an exported model, as --init_from has it.
      variables: COLLECTION/LAYER/… -> array.
      trained_on: the data set, NAME/CONFIG.
      identity: run, or SHA-256 of the exported model.
      studies: part -> keys of the studies that developed it; None where they are not known.
      unknown: data sets of the exported models that it began with itself, whose studies are not known.
    """

    path: str
    variables: dict[str, np.ndarray]
    trained_on: str
    identity: str
    studies: dict[str, StudyKeys] | None
    unknown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Tensors taken from an earlier network, as config.json holds them.

    Attributes:
      source: path of the earlier network.
      identity: see `Source.identity`.
      trained_on: its data set.
      loaded: names of the tensors that have its values.
      other_shape: of those that it has in another shape: name, its shape and the one here.
      absent: of those that it lacks.
      leak_check: what was compared.
      unknown: see `Source.unknown`, with that of the earlier network itself.
    """

    source: str
    identity: str
    trained_on: str
    loaded: list[str]
    other_shape: list[str]
    absent: list[str]
    leak_check: str
    unknown: list[str] = dataclasses.field(default_factory=list)

    def describe(self) -> str:
        """Return a line for each tensor."""
        lines = [
            *(f"loaded  {name}" for name in self.loaded),
            *(f"left out, other shape  {t}" for t in self.other_shape),
        ]
        lines += [f"left out, absent there  {name}" for name in self.absent]
        count = len(self.loaded) + len(self.other_shape) + len(self.absent)
        summary = f"{len(self.loaded)} of {count} tensors are those of {self.source}. {self.leak_check}"
        return "\n".join([*(f"  {line}" for line in lines), summary])


def plan(source: Source, abstract: TrainState, dataset: Dataset) -> Initialisation:
    """Compare an earlier network with the one that will be trained.

    Args:
      source: the earlier network.
      abstract: shapes of the state.
      dataset: whose test studies must not have developed the earlier network, and whose validation studies must not
        have trained it.

    Raises:
      UserError: no tensor fits, or there are such studies.
    """
    own = _flat(abstract)
    fits = {name: source.variables[name].shape == leaf.shape for name, leaf in own.items() if name in source.variables}
    shapes = [
        f"{name} {source.variables[name].shape} there, {own[name].shape} here"
        for name, same in fits.items()
        if not same
    ]
    loaded = [name for name, same in fits.items() if same]
    if not loaded:
        raise UserError(
            f"--init_from={source.path}: none of its {len(source.variables)} tensors fits this network "
            f"(first: {shapes[0] if shapes else next(iter(own))}): use its --model, --size, --width and --windows"
        )
    absent = [name for name in own if name not in source.variables]
    leak_check = check_leaks(source, dataset)
    unknown = [*source.unknown, *([source.trained_on] if source.studies is None else [])]
    return Initialisation(source.path, source.identity, source.trained_on, loaded, shapes, absent, leak_check, unknown)


def check_leaks(source: Source, dataset: Dataset) -> str:
    """Check that no test study developed the earlier network, and that no validation study trained it.

    Returns:
      What was compared, in a few sentences.

    Raises:
      UserError: there are such studies.
    """
    if source.studies is None:
        logging.warning(
            "--init_from=%s: an exported model does not list the studies that developed it, so it is not known whether "
            "test or validation studies are among them: use the workdir of its run where you can",
            source.path,
        )
        return "The studies that developed the earlier network are not known; no leak was looked for."
    (tested, validation), before = (dataset.keys.take(dataset.parts[part]) for part in ("test", "validation")), ""
    if source.unknown:
        before = (
            f" It began with an exported model that was trained on {', '.join(source.unknown)} and does not list its "
            "studies: no leak was looked for among these."
        )
        logging.warning("--init_from=%s:%s", source.path, before)
    names = {"trained_on": source.trained_on, "dataset": dataset.name}
    try:
        compared = leakage.check_tested(source.studies, tested, **names)
    except UserError as error:
        raise UserError(
            f"--init_from={source.path}: it was developed on test studies of this run ({error}), or use that run's "
            "--protocol, --fold and --split_seed"
        ) from error
    try:
        compared += leakage.check_choosing(source.studies, validation, **names)
    except UserError as error:
        raise UserError(
            f"--init_from={source.path}: {error}: use that run's --protocol, --fold and --split_seed, or an earlier "
            "network of other studies"
        ) from error
    return compared + before


def apply(source: Source, planned: Initialisation, state: TrainState) -> TrainState:
    """Return a state of step 0 whose parameters, and their running means, begin with those that were planned."""
    taken = {name: jnp.asarray(source.variables[name], jnp.float32) for name in planned.loaded}
    params, batch_stats = (_replaced(getattr(state, name), name, taken) for name in COLLECTIONS)
    # Copies: the training step is given the buffers of its state, each once.
    averaged, averaged_stats = (jax.tree.map(jnp.copy, tree) for tree in (params, batch_stats))
    return state.replace(
        params=params,
        batch_stats=batch_stats,
        ema_params=averaged if state.ema_params else {},
        ema_batch_stats=averaged_stats if state.ema_batch_stats else {},
    )


def _flat(state: TrainState) -> dict[str, Any]:
    trees: Any = {name: getattr(state, name) for name in COLLECTIONS}
    return traverse_util.flatten_dict(trees, sep="/")


def _replaced(tree: Any, collection: str, taken: Mapping[str, Any]) -> Any:
    flat = traverse_util.flatten_dict(tree, sep="/")
    changed = {name: taken.get(f"{collection}/{name}", leaf) for name, leaf in flat.items()}
    return traverse_util.unflatten_dict(changed, sep="/")
