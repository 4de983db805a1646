"""Network of a run: one of `covidscan.models`, or the user's own, which is checked before anything is computed."""

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging
from flax.errors import ScopeParamShapeError
from jax import export

from covidscan import models
from covidscan.config import Config, is_own_network
from covidscan.distributed import devices
from tfds_mosmed.errors import UserError, first_line, one_line

PACKAGE = Path(models.__file__).parents[1]
KEPT = ("params", "batch_stats")  # collections of variables that a run stores
SHOWN = ("features", "perturbations", "lesions", "intermediates")  # what networks sow; it is not stored
# Whether lesions vote for (1) or against (-1) the first output and the others; of several classes, which of them mean
# no disease is not known.
LESION_VOTES = {"binary": (-1, 1), "classes": None, "severity": (1, 1), "multilabel": (1, 1), "regression": (1, 1)}
CONTRACT = "see “Your own network” in covidscan/models/README.md"


def create_network(config: Config, outputs: int, input_shape: tuple[int, ...], dtype: Any) -> nn.Module:
    """Create the network of a Config.

    Args:
      config: the run's flags.
      outputs: number of logits.
      input_shape: (slice, row, column, window) of one example.
      dtype: dtype of the computation.

    Raises:
      UserError: the user's own network cannot be imported, or does not keep to the contract in the README.
    """
    settings = {"width": config.width, "dropout": config.dropout, "dtype": dtype, "axis_name": devices.REPLICAS}
    settings = {name: value for name, value in settings.items() if value is not None}
    if is_own_network(config.model):
        return _OwnNetwork(config.model).create(settings | {"outputs": outputs}, input_shape)
    if config.model == "lung_resnet":
        settings |= {"size": config.size, "votes": LESION_VOTES[config.task]}
    return models.create(config.model, outputs, **settings)


def source_sha256(config: Config) -> str | None:
    """Return the SHA-256 of the file that defines the user's own network; None for the networks of this project."""
    if not is_own_network(config.model):
        return None
    factory = _OwnNetwork(config.model).factory()
    try:
        path = inspect.getsourcefile(factory)
    except TypeError:  # it is a builtin, or an object that is called
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None


def warn_if_changed(run: dict[str, Any], workdir: object) -> None:
    """Warn where the file of the user's own network is not the one that a run was trained with.

    Args:
      run: content of its config.json.
      workdir: the run.
    """
    stored = run.get("network_sha256")
    if stored is not None and source_sha256(config := Config.from_json(run["config"])) != stored:
        logging.warning(
            "--model=%s: its file has changed since %s was trained: where the change affects the network, its "
            "predictions are not those of the training",
            config.model,
            workdir,
        )


def has_features(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Return whether a network exposes a layer to saliency maps, see `layers.expose_features`."""
    return _sows(model, input_shape, "features")


def has_lesion_map(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Return whether a network has a map that learns from lesion masks."""
    return _sows(model, input_shape, "lesions")


def lesion_map_shape(model: nn.Module, variables: Any, input_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return (batch, slice, row, column) of the lesion map of inputs (batch, slice, row, column, window), or None."""
    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    _, sown = jax.eval_shape(lambda variables, x: model.apply(variables, x, mutable=["lesions"]), variables, x)
    return sown["lesions"]["logits"][0].shape if "lesions" in sown else None


def check_crops(model: nn.Module, variables: Any, input_shape: tuple[int, ...], crop: tuple[int, ...]) -> None:
    """Check by tracing that a network can be trained on crops, and then used on whole volumes.

    Args:
      model: the network.
      variables: their shapes and dtypes.
      input_shape: (slice, row, column, window) of a whole volume.
      crop: (slice, row, column).

    Raises:
      UserError: its parameters depend on the size of the volume, or it has no lesion map that a crop fits to.
    """
    size = "--lesion_crops={1}x{2}x{0}".format(*crop)
    whole = lesion_map_shape(model, variables, (1, *input_shape))
    if whole is None:
        raise UserError(f"{size}: this network has no map that learns from lesion masks: give --model=lung_resnet")
    try:
        part = lesion_map_shape(model, variables, (1, *crop, input_shape[-1]))
    except ScopeParamShapeError as error:
        raise UserError(
            f"{size}: parameters of this network depend on the size of the volume: give another --size than patches"
        ) from error
    assert part is not None
    cell = [voxels // count for voxels, count in zip(input_shape[:3], whole[1:], strict=True)]
    if [count * voxels for count, voxels in zip(part[1:], cell, strict=True)] != list(crop):
        raise UserError(
            f"{size}: give multiples of {cell[1]}, {cell[2]} and {cell[0]} voxels, of which a cell of the lesion map is"
        )


def _sows(model: nn.Module, input_shape: tuple[int, ...], collection: str) -> bool:
    def shown() -> Any:
        x = jnp.zeros((1, *input_shape))
        variables = model.init(jax.random.key(0), x)
        kept: Any = {name: variables.get(name, {}) for name in KEPT}
        return model.apply(kept, x, mutable=[collection])[1]

    return collection in jax.eval_shape(shown)


class _OwnNetwork:
    """A network that the user wrote.

    Args:
      name: --model, package.module:factory.
    """

    def __init__(self, name: str):
        self._name = name

    def factory(self) -> Any:
        """Import the function or class that creates the network."""
        module, _, attribute = self._name.partition(":")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                self._refuse(f"there is no module {error.name}: put the folder that holds it on PYTHONPATH", error)
            self._refuse(f"importing {module} needs {error.name}: install it", error)
        except Exception as error:
            self._refuse(f"importing {module} {_raised(error)}", error)
        if not callable(getattr(found, attribute, None)):
            self._refuse(f"module {module} has no function or class {attribute}")
        return getattr(found, attribute)

    def create(self, settings: dict[str, Any], input_shape: tuple[int, ...]) -> nn.Module:
        """Create the network, and check it by tracing it: nothing is computed."""
        given = ", ".join(sorted(settings))
        factory = self.factory()
        try:
            model = factory(**settings)
        except Exception as error:
            self._refuse(f"called with {given}, it {_raised(error)}; {CONTRACT}", error)
        if not isinstance(model, nn.Module):
            self._refuse(f"it returned {_article(type(model).__name__)}, not a flax.linen.Module; {CONTRACT}")
        try:
            hash(model)
        except TypeError as error:
            self._refuse(f"an attribute of it cannot be hashed ({first_line(error)}): use tuples, not lists", error)
        variables = self._check_variables(model, input_shape)
        self._check_logits(model, variables, input_shape, settings["outputs"])
        self._check_training(model, variables, input_shape)
        return model

    def _check_variables(self, model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
        try:
            variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *input_shape)))
        except Exception as error:
            self._refuse(f"init(key, x) with x {(1, *input_shape)} {_raised(error)}; {CONTRACT}", error)
        if other := sorted(set(variables) - {*KEPT, *SHOWN}):
            self._refuse(f"it has variables in {', '.join(other)}; only {' and '.join(KEPT)} are stored")
        kept = {name: variables.get(name, {}) for name in KEPT}
        if not jax.tree.leaves(kept["params"]):
            self._refuse("it has no parameters, so there is nothing to train")
        if other := {leaf.dtype.name for leaf in jax.tree.leaves(kept)} - {"float32"}:
            self._refuse(f"it has parameters in {', '.join(sorted(other))}: leave param_dtype at float32")
        lesions = [leaf.shape for leaf in jax.tree.leaves(variables.get("lesions", {}))]
        if lesions and not ("logits" in variables["lesions"] and len(lesions) == 1 and len(lesions[0]) == 4):
            self._refuse(f"it sows {lesions} in lesions: one array, logits (batch, slice, row, column), is expected")
        return kept

    def _check_logits(
        self, model: nn.Module, variables: dict[str, Any], input_shape: tuple[int, ...], outputs: int
    ) -> None:
        (batch,) = export.symbolic_shape("batch")
        x = jax.ShapeDtypeStruct((batch, *input_shape), jnp.float32)
        try:
            logits: Any = jax.eval_shape(lambda own, x: model.apply(own, x, train=False), variables, x)
        except Exception as error:
            self._refuse(f"called with train=False and a batch of any size, it {_raised(error)}; {CONTRACT}", error)
        found = [f"{leaf.dtype.name} {leaf.shape}" for leaf in jax.tree.leaves(logits)]
        if found != [f"float32 {(batch, outputs)}"]:
            shown = ", ".join(found) or "nothing"
            self._refuse(f"it returned {shown} in place of logits, float32 (batch, {outputs}); {CONTRACT}")

    def _check_training(self, model: nn.Module, variables: dict[str, Any], input_shape: tuple[int, ...]) -> None:
        """Check a call in training, and that batch statistics are synchronised: replicas would drift apart unseen."""

        def train(own: dict[str, Any], x: jax.Array) -> Any:
            rngs = {"dropout": jax.random.key(0)}
            return model.apply(own, x, train=True, rngs=rngs, mutable=["batch_stats", "lesions"])

        x = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
        try:
            traced = jax.make_jaxpr(train, axis_env=[(devices.REPLICAS, 2)], return_shape=True)(variables, x)
        except Exception as error:
            self._refuse(f"called with train=True, it {_raised(error)}; {CONTRACT}", error)
        jaxpr, (_, updates) = traced
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(updates.get("batch_stats", {}))]
        layers = sum(path.endswith("['mean']") for path in paths) or min(1, len(paths))
        if str(jaxpr).count("psum") < layers:
            self._refuse("its batch normalisation is of each device alone: pass axis_name on to every nn.BatchNorm")

    def _refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise UserError(f"--model={self._name}: {one_line(reason)}") from cause


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _raised(error: Exception) -> str:
    """Describe an exception of the user's own code: its type, where it was raised, and the first line of it."""
    at, frame = "", error.__traceback__
    while frame is not None:
        path = Path(frame.tb_frame.f_code.co_filename)
        if path.exists() and "site-packages" not in path.parts and not path.is_relative_to(PACKAGE):
            at = f" (line {frame.tb_lineno} of {path.name})"
        frame = frame.tb_next
    return f"raised {type(error).__name__}{at}: {first_line(error)}"
