"""Exported model, which needs JAX and flatbuffers alone; `python -m covidscan.export` writes it.

An exported model is an executable program: load only one whose origin you trust, and give `expect_sha256`, the hash
that the export printed. Calls of code outside of it are refused, and results that are no probabilities.

MODEL/model.json          description, the preparation of a study, the SHA-256 of every other file
      model.stablehlo     computation for CPU, CUDA and TPU, serialized by `jax.export`
      weights.npz         parameters of the networks
      predict_volume.py   example that uses the model without CovidScan
      preparation.zip     modules that read and prepare a scan, for the example
      model_card.md       of the evaluation, where the run was evaluated
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import UserError, first_line

FORMAT = "covidscan model 1"
CUSTOM_CALLS = {"shape_assertion"}  # of the symbolic batch size; any other could run code of this process
TOLERANCE = 1e-3  # of probabilities, for the rounding of float32 and of means over networks
DESCRIPTION, COMPUTATION, WEIGHTS = "model.json", "model.stablehlo", "weights.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedModel:
    """Exported network, or ensemble of networks.

    Attributes:
      folder: it was loaded from.
      info: task, labels, grid, windows and operating point.
      sha256: hash of the content of the folder.
      weights: parameters by name, on the device.
      call: (weights, int16 volumes) -> probabilities.
    """

    folder: Path
    info: ModelInfo
    sha256: str
    weights: dict[str, jax.Array]
    call: Callable[[dict[str, jax.Array], jax.Array], jax.Array]

    def probabilities(self, volumes: jax.typing.ArrayLike) -> np.ndarray:
        """Return what `Ensemble.probabilities` returns, computed in the networks' dtype on every platform.

        Compiled once per batch size.

        Args:
          volumes: (batch, slice, row, column), integer HU, on the grid.

        Returns:
          (batch, label), float32; of regression the value, (batch, 1).

        Raises:
          UserError: the results are not finite, or, of probabilities, not within 0 and 1, or their sum is not 1.
        """
        result = np.asarray(self.call(self.weights, jnp.asarray(volumes, jnp.int16)))
        if self.info.task == "regression":
            if not np.isfinite(result).all():
                raise UserError(
                    f"{self.folder}: its results for a study are no numbers ({_brief(result[0])}): do not use it; "
                    "export again, with --checkpoint=best if its training diverged"
                )
            return result
        in_range = (result >= -TOLERANCE) & (result <= 1 + TOLERANCE)  # NaN is not
        is_set = self.info.task == "multilabel"  # whose probabilities are independent
        if not in_range.all() or (not is_set and np.abs(result.sum(axis=1) - 1).max(initial=0) > TOLERANCE):
            raise UserError(
                f"{self.folder}: its results for a study are no probabilities ({_brief(result[0])}): do not use it; "
                "export again, with --checkpoint=best if its training diverged"
            )
        return result


def load(directory: str | os.PathLike[str], expect_sha256: str | None = None) -> ExportedModel:
    """Load an exported model, an executable program, onto the default device.

    Args:
      directory: written by `python -m covidscan.export`.
      expect_sha256: hash that the export printed, see `content_sha256`; None: not checked.

    Raises:
      UserError: there is no model, it has another hash, one of its files is damaged, it calls code outside of itself,
        or it cannot run on this platform.
    """
    folder = Path(directory)
    description = read_description(folder, expect_sha256)
    for name in (COMPUTATION, WEIGHTS, *description["files"]):
        _check_file(folder / name, description["files"].get(name, {}).get("sha256"))
    info = _read_info(folder / DESCRIPTION, description["model"])
    computation = _read_computation(folder / COMPUTATION, description)
    _check_custom_calls(folder / COMPUTATION, computation)
    with np.load(folder / WEIGHTS) as weights:
        on_device = {name: jnp.asarray(weights[name]) for name in weights.files}
    call = jax.jit(computation.call)
    _check_fits(folder, info, call, on_device)
    return ExportedModel(folder=folder, info=info, sha256=description["sha256"], weights=on_device, call=call)


def content_sha256(description: dict[str, Any]) -> str:
    """Return the SHA-256 of the content of model.json, without this hash itself but with those of all other files.

    It is that of the JSON with sorted keys, ", " and ": " as separators, and escapes for what is not ASCII.
    """
    others = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path, expect_sha256: str | None = None) -> dict[str, Any]:
    """Read model.json.

    Args:
      folder: of the exported model.
      expect_sha256: hash that it must have, see `content_sha256`; None: any.

    Raises:
      UserError: the file does not exist, is damaged or has another hash.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no {DESCRIPTION}: give a folder written by python -m covidscan.export")
    try:
        description = json.loads(path.read_bytes())
    except (RecursionError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(description, dict) or not str(description.get("format")).startswith("covidscan model"):
        raise UserError(f"{path} is not that of an exported model: give a folder written by python -m covidscan.export")
    if description["format"] != FORMAT:
        raise UserError(f"{path} was written by another version ({description['format']}, not {FORMAT}): export again")
    if content_sha256(description) != description.get("sha256") or not _is_complete(description):
        raise _damaged(path)
    if expect_sha256 is not None and expect_sha256.strip().lower() != description["sha256"]:
        raise UserError(
            f"{folder} has SHA-256 {description['sha256']}, not the expected {expect_sha256!r}: do not use it unless "
            "you know why; the command that exported it printed its hash"
        )
    return description


def _is_complete(description: dict[str, Any]) -> bool:
    files, model, packages = (description.get(name) for name in ("files", "model", "package_versions"))
    hashed = isinstance(files, dict) and all(isinstance(file, dict) for file in files.values())
    return hashed and isinstance(model, dict) and isinstance(model.get("grid"), str) and isinstance(packages, dict)


def _read_info(path: Path, values: dict[str, Any]) -> ModelInfo:
    try:
        return ModelInfo.from_json(values)
    except (TypeError, ValueError) as error:  # UserError is a ValueError
        raise UserError(f'{path}: its entry "model" {error}: export again') from error


def _check_file(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder again, or export again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise _damaged(path)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: copy the whole folder again, or export again")


def _read_computation(path: Path, description: dict[str, Any]) -> export.Exported:
    """Read the computation, and check that it runs on this platform."""
    made_by = description["package_versions"].get("jax")
    try:
        computation = export.deserialize(bytearray(path.read_bytes()))
    except ImportError as error:
        raise UserError(f"{path} needs one more package: pip install flatbuffers") from error
    except Exception as error:  # whatever unknown content makes the reader raise
        raise UserError(
            f"{path} was written with JAX {made_by}, and JAX {jax.__version__} cannot read it "
            f"({first_line(error)}): install that version, or export again"
        ) from error
    here = export.default_export_platform()
    if here not in computation.platforms:
        raise UserError(
            f"{path} runs on {', '.join(computation.platforms)}, not on {here}: set JAX_PLATFORMS=cpu to use the CPU"
        )
    return computation


def _check_custom_calls(path: Path, computation: export.Exported) -> None:
    """Raise UserError where a computation calls anything else than exported networks do."""
    try:
        text = computation.mlir_module()  # which has each operation in full, whatever it was called in the file
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"{path} was exported with a later JAX than this one, {jax.__version__}, which cannot read it: install the "
            f"version in {DESCRIPTION} (package_versions), or export again with this one"
        ) from error
    found = {name or "another form" for name in re.findall(r"custom_call(?: @([\w.$]+)\()?", text)}
    if refused := sorted(found - CUSTOM_CALLS):
        raise UserError(
            f"{path} calls code outside of itself ({', '.join(refused)}), which no exported network does: do not use "
            "it; export again"
        )


def _check_fits(folder: Path, info: ModelInfo, call: Callable, weights: dict[str, jax.Array]) -> None:
    """Raise UserError where a computation does not take these weights and volumes, or return a number a label."""
    try:
        got = jax.eval_shape(call, weights, jax.ShapeDtypeStruct((2, *info.volume_shape), jnp.int16))
        problem = "" if got.shape == (2, len(info.label_names)) else f"it returns {got.shape[1:]} numbers for a study"
    except Exception as error:  # JAX raises several types
        problem = first_line(error)
    if problem:
        raise UserError(f"{folder}: {COMPUTATION} does not fit {DESCRIPTION} ({problem}): export again")


def _brief(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers[:4])
