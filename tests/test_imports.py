"""Imports: each room imports only from the floors below its own, and runs without packages that it does not need."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import runs

# Rooms of one floor do not import each other. The commands' floor holds all else in covidscan/ itself.
FLOORS = (
    ("tfds_mosmed", "covidscan.models", "covidscan.version"),
    ("covidscan.config", "covidscan.metrics"),
    ("covidscan.distributed", "covidscan.runs"),
    ("covidscan.data", "covidscan.report", "covidscan.cli"),
    ("covidscan.training",),
    ("covidscan.trained_models", "covidscan.benchmarking"),
    ("covidscan.prediction", "covidscan.explanation"),
    ("covidscan.evaluation",),
    ("covidscan",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}


def _room(module: str) -> str | None:
    """Return the room of a module, or None for one of another project."""
    parts = module.split(".")
    return next((room for n in (2, 1) if (room := ".".join(parts[:n])) in FLOOR), None)


def _imported(file: Path, module: str) -> Iterator[str]:
    """Yield every module that a file imports, inside functions and for type checking too."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path:
    """Return the file of a module, or of what is imported from it."""
    path = runs.ROOT.joinpath(*module.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py"), path.parent / "__init__.py")
    return next(file for file in found if file.exists()).relative_to(runs.ROOT)


def _violations(package: str) -> Iterator[str]:
    for file in sorted((runs.ROOT / package).rglob("*.py")):
        path = file.relative_to(runs.ROOT)
        module = ".".join((path.parent if file.name == "__init__.py" else path.with_suffix("")).parts)
        room = _room(module)
        assert room
        for imported in _imported(file, module):
            other = _room(imported)
            if other not in (None, room) and FLOOR[other] >= FLOOR[room]:
                yield f"{path} imports {_file(imported)}"


@pytest.mark.parametrize("package", ["covidscan", "tfds_mosmed"])
def test_each_room_imports_only_from_lower_floors(package):
    found = set(_violations(package))
    assert not found, "\n".join(sorted(found))


IMPORT_ALL = """
import importlib, pkgutil, sys
absent, *names = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split(",")))  # importing one of these fails
for name in names:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
        importlib.import_module(module.name)
"""
LACKING_DATA = "tensorflow_datasets,grain,nibabel,orbax"


@pytest.mark.parametrize(
    ("absent", "names"),
    [
        ("jax,jaxlib,flax,optax,orbax,pyarrow", ["tfds_mosmed"]),
        (LACKING_DATA, ["covidscan.models"]),
        (LACKING_DATA, ["covidscan.training.step", "covidscan.training.experiment"]),
        (LACKING_DATA, ["covidscan.benchmark", "covidscan.benchmarking"]),
    ],
    ids=["data sets", "models", "training step", "benchmark"],
)
def test_rooms_are_importable_without_packages_that_they_do_not_need(absent, names):
    code = [sys.executable, "-c", IMPORT_ALL, absent, *names]
    done = subprocess.run(code, cwd=runs.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
