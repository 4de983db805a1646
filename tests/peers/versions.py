"""Package versions of the environment that runs it: `python -m tests.peers.versions` prints JSON."""

import importlib.metadata
import json
import platform

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "isal"),
    *("keras", "tensorflow-cpu", "torch", "monai", "torchio", "scipy", "nibabel"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages among PACKAGES."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(versions()))
