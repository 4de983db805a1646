"""A run's folder: config.json says what made it, and nothing else is needed to judge or use it."""

import importlib.metadata
import json
import platform
import subprocess
from typing import Any

from etils import epath

import covidscan
from covidscan.data import Studies
from covidscan.flags import FREE_TO_CHANGE, Config
from tfds_mosmed.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "scipy")


def _code_version() -> str:
    """Give the package's version with the commit, where the code lies in a git work tree."""
    folder = epath.Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return covidscan.__version__
    return f"{covidscan.__version__}+{commit}"


def describe(config: Config, studies: Studies) -> dict[str, Any]:
    """Tell all that config.json holds.

    Args:
      config: the flags.
      studies: the data set, with the parts of the split.

    Returns:
      A dict for JSON.
    """
    return {
        "config": config.to_json(),
        "data": {
            "dataset": studies.dataset,
            "fingerprint": studies.fingerprint,
            "split_hash": studies.split_hash,
            "label_names": list(studies.labels.names),
            "volume_shape": list(studies.volume_shape),
            "studies": {part: studies.counts(part) for part in studies.parts},
            "skipped": [list(study) for study in studies.skipped],
        },
        "code_version": _code_version(),
        "python_version": platform.python_version(),
        "package_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write_text(path: epath.Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.rename(path)


def open_run(workdir: epath.PathLike, description: dict[str, Any]) -> None:
    """Make a new run's folder, or check that an old one is of the same experiment.

    Args:
      workdir: the run.
      description: what `describe` gave.

    Raises:
      UserError: the folder is another experiment's.
      OSError: it cannot be written.
    """
    path = epath.Path(workdir) / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        old, new = json.loads(path.read_text()), description
        flags = sorted(name for name in new["config"] if old["config"].get(name) != new["config"][name])
        differing = [
            f"--{name}={old['config'].get(name)} there, {new['config'][name]} now"
            for name in flags
            if name not in FREE_TO_CHANGE
        ]
        if differing:
            raise UserError(
                f"{path} was made with other flags ({'; '.join(differing)}): use the same flags or another --workdir"
            )
        for name in ("fingerprint", "split_hash"):
            if old["data"][name] != new["data"][name]:
                raise UserError(
                    f"{path} was made with other studies ({name} differs): use the same --data_dir or another --workdir"
                )
    else:
        write_text(path, json.dumps(description, indent=2) + "\n")


def read_run(workdir: epath.PathLike) -> dict[str, Any]:
    """Read what made a run.

    Args:
      workdir: the run.

    Returns:
      What `describe` gave.

    Raises:
      UserError: this is no run's folder.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{path} does not exist: --workdir must be a folder that python -m covidscan.train made")
    return json.loads(path.read_text())
