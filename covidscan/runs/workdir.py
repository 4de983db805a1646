"""Folder of a run. Its config.json describes the run; nothing else is needed to evaluate or use it."""

import dataclasses
import importlib.metadata
import json
import math
import platform
from typing import Any

from etils import epath

from covidscan.config import FREE_TO_CHANGE, Config, DataPaths
from covidscan.metrics.signed_json import checksum
from covidscan.version import code_version
from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError

CROSS_VALIDATION = "cross_validation.json"  # a workdir with this file is a cross-validation, with a run for each fold
OUT_OF_FOLD = "out_of_fold"  # part of a cross-validation: each study predicted by the network that never saw it
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "scipy",
)


def describe(
    config: Config,
    paths: DataPaths,
    data: dict[str, Any],
    network_sha256: str | None = None,
    initialisation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that config.json holds.

    Args:
      config: the flags.
      paths: where the data are, the default of later commands.
      data: the data set and its split, see `Dataset.to_json`.
      network_sha256: of the file that defines the user's own network; None of this project's networks.
      initialisation: what was taken from an earlier network, see `initialise.Initialisation`.

    Returns:
      A dict for JSON.
    """
    return {
        "config": config.to_json(),
        "paths": dataclasses.asdict(paths),
        "data": data,
        "code_version": code_version(),
        "python_version": platform.python_version(),
        "package_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **({} if network_sha256 is None else {"network_sha256": network_sha256}),
        **({} if initialisation is None else {"initialisation": initialisation}),
    }


def evaluation_folder(
    workdir: epath.PathLike, dataset: str, part: str, checkpoint: str, prevalence: float | None = None, tta: str = ""
) -> epath.Path:
    """Return the folder of an evaluation.

    Args:
      workdir: of the run or the cross-validation.
      dataset: the data set, NAME/CONFIG.
      part: "train", "validation", "test" or, of a cross-validation, `OUT_OF_FOLD`.
      checkpoint: "best", "latest" or a step.
      prevalence: to which predictions are adapted; None: to none.
      tta: set of views over which the predictions are averaged; "": none.
    """
    adapted = f"-tta_{tta}" if tta else ""
    adapted += "" if prevalence is None else f"-prevalence_{prevalence:g}"
    return epath.Path(workdir) / "evaluations" / f"{dataset}-{part}-{checkpoint}{adapted}".replace("/", "_")


def is_cross_validation(workdir: epath.PathLike) -> bool:
    """Return whether a workdir is that of a cross-validation."""
    storage.check(workdir)
    return (epath.Path(workdir) / CROSS_VALIDATION).exists()


def read_cross_validation(workdir: epath.PathLike) -> Config:
    """Read the flags of a cross-validation.

    Raises:
      UserError: the file is not as it was written.
    """
    path = epath.Path(workdir) / CROSS_VALIDATION
    try:
        return Config.from_json(json.loads(path.read_bytes())["config"])
    except NOT_AS_WRITTEN as error:
        raise UserError(
            f"{path} is not as training wrote it ({error!r}): put it back from a copy of it, or remove it and run "
            "python -m covidscan.train again with the same flags"
        ) from error


def fold_workdir(workdir: epath.PathLike, fold: int) -> epath.Path:
    """Return the workdir of a fold of a cross-validation, which is a run."""
    return epath.Path(workdir) / f"fold_{fold}"


def first_run(workdir: epath.PathLike) -> epath.Path:
    """Return the workdir of a run; of a cross-validation that of its first fold."""
    return fold_workdir(workdir, 0) if is_cross_validation(workdir) else epath.Path(workdir)


def write_text(path: epath.Path, text: str) -> None:
    """Write a file atomically."""
    storage.write_whole(path, text.encode())


def grid_of(run: dict[str, Any]) -> str:
    """Return the grid of a run's records; older versions did not write it to config.json."""
    if "grid" in run["data"]:
        return run["data"]["grid"]
    from tfds_mosmed import catalog  # imported lazily: slow, as it imports TFDS

    config: Any = catalog.load_builder(run["data"]["dataset"], run["paths"]["data_dir"]).builder_config
    return str(config.grid)


def stored_config(workdir: epath.PathLike) -> Config | None:
    """Read the flags of a run that goes on; None where a new one begins. Raises UserError, see `read_run`."""
    storage.check(workdir)
    path = epath.Path(workdir) / "config.json"
    return None if not path.exists() or _is_cut(workdir) else Config.from_json(read_run(workdir)["config"])


def check_run(workdir: epath.PathLike, config: Config) -> None:
    """Check that a workdir is new, or that of a run with the same flags.

    Raises:
      UserError: the folder is that of another experiment, or in an object store that cannot be reached.
    """
    path = epath.Path(workdir) / "config.json"
    if is_cross_validation(workdir):
        raise UserError(f"--workdir={workdir} holds a cross-validation: use --fold=all or another one")
    stored = stored_config(workdir)
    if stored is None:
        return
    old, new = stored.to_json(), config.to_json()
    differing = [
        f"--{name}={old[name]} there, {new[name]} now"
        for name in new
        if old[name] != new[name] and name not in FREE_TO_CHANGE
    ]
    if differing:
        raise UserError(
            f"{path} was made with other flags ({'; '.join(differing)}): use the same flags or another --workdir"
        )


def open_run(workdir: epath.PathLike, description: dict[str, Any]) -> None:
    """Create the folder of a new run, or check that that of an existing run was made with the same studies.

    A config.json that cannot be read is written anew where there is no checkpoint: a power cut may have left it.

    Args:
      workdir: the run.
      description: see `describe`.

    Raises:
      UserError: the run was trained on other studies.
      OSError: the folder cannot be written.
    """
    path = epath.Path(workdir) / "config.json"
    storage.sweep(workdir)
    if not path.exists() or _is_cut(workdir):
        storage.make_folder(path.parent)
        write_text(path, json.dumps(description, indent=2) + "\n")
        return
    for name in ("fingerprint", "split_hash"):
        if read_run(workdir)["data"][name] != description["data"][name]:
            raise UserError(
                f"{path} was made with other studies (their {name} differs): use the --data_dir of that run or another "
                "--workdir"
            )
    if not has_checkpoints(workdir):  # nothing was trained: what trains it now is described, and what it begins with
        write_text(path, json.dumps(description, indent=2) + "\n")


def read_run(workdir: epath.PathLike) -> dict[str, Any]:
    """Read config.json of a run, see `describe`.

    Raises:
      UserError: the folder is not that of a run, it cannot be reached, or config.json is not as it was written.
    """
    storage.check(workdir)
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        remedy = "give the workdir of a run, a folder that python -m covidscan.train has made"
        if (epath.Path(workdir) / "model.json").exists():
            remedy = f"an exported model is used with --model={workdir}"
        raise UserError(f"{path} does not exist: {remedy}")
    try:
        run = json.loads(path.read_bytes())
        _check_kinds(run)
        return run
    except NOT_AS_WRITTEN as error:
        remedy = "put it back from a copy of it, or train in another --workdir"
        if not has_checkpoints(workdir):
            remedy = "the run has no checkpoint, so train it again with python -m covidscan.train"
        raise UserError(f"{path} is not as training wrote it ({error or repr(error)}): {remedy}") from error


def run_id(workdir: epath.PathLike) -> str | None:
    """Return what tells a run from those with other flags or studies; None of a folder without config.json.

    Runs that are equal have the same, as they would have the same result.

    Raises:
      UserError: config.json is not as it was written.
    """
    return checksum(trained_as(read_run(workdir))) if (epath.Path(workdir) / "config.json").exists() else None


def trained_as(run: dict[str, Any]) -> dict[str, Any]:
    """Return what of config.json must stay as it is while there are checkpoints: each holds a copy of this."""
    fixed = {name: value for name, value in run["config"].items() if name not in FREE_TO_CHANGE}
    return {"config": fixed, "data": {name: run["data"][name] for name in _DATA if name in run["data"]}}


# Of run["data"], what changes a network's predictions or their meaning.
_DATA = {
    "dataset": str,
    "fingerprint": str,
    "split_hash": str,
    "label_names": list,
    "num_train": int,
    "volume_shape": list,
    "grid": str,
    "scaling": dict,
}
_OPTIONAL = ("grid", "scaling")  # of older runs, and of the tasks that do not scale labels


def _check_kinds(run: Any) -> None:
    """Check that what commands use of config.json is there, and of its kind."""
    Config.from_json(run["config"])
    DataPaths(**run["paths"])
    for name, kind in _DATA.items():
        if (name in run["data"] or name not in _OPTIONAL) and not isinstance(run["data"][name], kind):
            raise TypeError(f"data.{name} is {run['data'][name]!r}")
    names, shape, num_train = (run["data"][name] for name in ("label_names", "volume_shape", "num_train"))
    is_value = run["config"].get("task") == "regression"
    if len(names) < (1 if is_value else 2) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"data.label_names is {names}")
    if is_value:
        mean, scale = (run["data"]["scaling"][name] for name in ("mean", "scale"))
        if not (math.isfinite(mean) and 0 < scale < math.inf):
            raise ValueError(f"data.scaling is {run['data']['scaling']}")
    if len(shape) != 3 or not all(isinstance(size, int) and 0 < size <= 4096 for size in shape) or num_train < 1:
        raise TypeError(f"data.volume_shape is {shape}, data.num_train is {num_train}")


def has_checkpoints(workdir: epath.PathLike) -> bool:
    """Return whether a run has saved a state."""
    folder = epath.Path(workdir) / "checkpoints"
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def _is_cut(workdir: epath.PathLike) -> bool:
    """Return whether config.json cannot be read, and there is no checkpoint that needs it."""
    if has_checkpoints(workdir):
        return False
    try:
        read_run(workdir)
    except UserError:
        return True
    return False
