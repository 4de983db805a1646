"""Exported model, which needs only JAX and NumPy; `python -m covidscan.export` writes it.

MODEL/model.json          description, the preparation of a study, the SHA-256 of every other file
      model.stablehlo     computation for CPU, CUDA and TPU, serialized by `jax.export`
      weights.npz         parameters of the networks
      predict_volume.py   example that uses the model without CovidScan
      model_card.md       of the evaluation, where the run was evaluated
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import UserError

FORMAT = "covidscan model 1"
DESCRIPTION, COMPUTATION, WEIGHTS = "model.json", "model.stablehlo", "weights.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedModel:
    """Exported network, or ensemble of networks.

    Attributes:
      info: task, labels, grid, windows and operating point.
      sha256: hash of the content of the folder.
      weights: parameters by name, on the device.
      call: (weights, int16 volumes) -> probabilities.
    """

    info: ModelInfo
    sha256: str
    weights: dict[str, jax.Array]
    call: Callable[[dict[str, jax.Array], jax.Array], jax.Array]

    def probabilities(self, volumes: jax.typing.ArrayLike) -> jax.Array:
        """Return what `Ensemble.probabilities` returns, computed in float32 on every platform.

        Compiled once per batch size. Do not call it inside another `jit`: the weights would be constants there, and
        compilation slow.

        Args:
          volumes: (batch, slice, row, column), integer HU, on the grid.

        Returns:
          (batch, label), float32.
        """
        return self.call(self.weights, jnp.asarray(volumes, jnp.int16))


def load(directory: str | os.PathLike[str]) -> ExportedModel:
    """Load an exported model onto the default device.

    Args:
      directory: written by `python -m covidscan.export`.

    Raises:
      UserError: there is no model, one of its files is damaged, or it cannot run on this platform.
    """
    folder = Path(directory)
    description = read_description(folder)
    for name, written in description["files"].items():
        _check_file(folder / name, written["sha256"])
    computation = _read_computation(folder / COMPUTATION, description)
    with np.load(folder / WEIGHTS) as weights:
        on_device = {name: jnp.asarray(weights[name]) for name in weights.files}
    return ExportedModel(
        info=_read_info(folder / DESCRIPTION, description["model"]),
        sha256=description["sha256"],
        weights=on_device,
        call=jax.jit(computation.call),
    )


def content_sha256(description: dict[str, Any]) -> str:
    """Return the SHA-256 of the content of model.json, without this hash itself but with those of all other files."""
    others = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path) -> dict[str, Any]:
    """Read model.json.

    Raises:
      UserError: the file does not exist or is damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no {DESCRIPTION}: give a folder written by python -m covidscan.export")
    try:
        description = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(description, dict) or not str(description.get("format")).startswith("covidscan model"):
        raise UserError(f"{path} is not that of an exported model: give a folder written by python -m covidscan.export")
    if description["format"] != FORMAT:
        raise UserError(f"{path} was written by another version ({description['format']}, not {FORMAT}): export again")
    if content_sha256(description) != description.get("sha256"):
        raise _damaged(path)
    return description


def _read_info(path: Path, values: dict[str, Any]) -> ModelInfo:
    try:
        return ModelInfo.from_json(values)
    except (TypeError, ValueError) as error:  # UserError is a ValueError
        raise UserError(f'{path}: its entry "model" {error}: export again') from error


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder again, or export again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise _damaged(path)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: copy the whole folder again, or export again")


def _read_computation(path: Path, description: dict[str, Any]) -> export.Exported:
    """Read the computation, and check that it runs on this platform."""
    made_by = description["package_versions"]["jax"]
    try:
        computation = export.deserialize(bytearray(path.read_bytes()))
    except ImportError as error:
        raise UserError(f"{path} needs one more package: pip install flatbuffers") from error
    except ValueError as error:
        raise UserError(
            f"{path} was written with JAX {made_by}, and JAX {jax.__version__} cannot read it "
            f"({str(error).splitlines()[0]}): install that version, or export again"
        ) from error
    here = export.default_export_platform()
    if here not in computation.platforms:
        raise UserError(
            f"{path} runs on {', '.join(computation.platforms)}, not on {here}: set JAX_PLATFORMS=cpu to use the CPU"
        )
    return computation
