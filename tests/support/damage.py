"""Damage to a single file or folder of a run, of an exported model or of records."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.mutations import mutated

NOBODY = 65534


class Damage(NamedTuple):
    """Damage that was done to a path."""

    kind: str
    path: Path


def damage_one(root: Path, other: Path, chance: random.Random) -> Damage:
    """Damage one path below a folder.

    Args:
      root: the folder.
      other: another folder of the same kind, whose part may take the place of the damaged one.
      chance: chooses path and kind.
    """
    paths = sorted(path for path in root.rglob("*") if path.is_dir() or path.stat().st_size)
    # Each kind of file as often as the others, however many there are of it, and folders too.
    kinds = sorted({_kind(path) for path in paths})
    chosen = chance.choice(kinds)
    path = chance.choice([path for path in paths if _kind(path) == chosen])
    ways = [_removed, _forbidden, _swapped, _link_to_nowhere, _exchanged]
    if path.is_file():
        ways += [_mutated, _mutated, _mutated, _mutated, _emptied]
    way = chance.choice(ways)
    way(path, other / path.relative_to(root), chance)
    return Damage(way.__name__.strip("_"), path)


def _kind(path: Path) -> str:
    """Return what a path is called in every run."""
    digits = "".join("" if letter.isdigit() else letter for letter in path.name)
    return "data" if len(path.name) == 32 else digits if "tfevents" not in digits else "events"


def _mutated(path: Path, _: Path, chance: random.Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), chance))


def _emptied(path: Path, *_: object) -> None:
    path.write_bytes(b"")


def _removed(path: Path, *_: object) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _forbidden(path: Path, *_: object) -> None:
    path.chmod(0)


def _link_to_nowhere(path: Path, *_: object) -> None:
    _removed(path)
    path.symlink_to("nowhere")


def _exchanged(path: Path, *_: object) -> None:
    """Put a file in the place of a folder, and a folder in that of a file."""
    folder = path.is_dir()
    _removed(path)
    path.write_bytes(b"text\n") if folder else path.mkdir()


def _swapped(path: Path, other: Path, chance: random.Random) -> None:
    """Put the same part of another run in its place, or another file of its name where that run has none."""
    if not other.exists():
        found = sorted(one for one in other.parent.rglob("*") if one.is_dir() == path.is_dir())
        if not found:
            return
        other = chance.choice(found)
    _removed(path)
    shutil.copytree(other, path) if other.is_dir() else shutil.copy(other, path)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user who may read nothing that is forbidden; root may read all."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
