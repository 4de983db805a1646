"""Cleaning up by a process that ends in the middle of its work, such as at Ctrl-C, without leaving any context."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

_clean_ups: list[Callable[[], None]] = []


@contextlib.contextmanager
def registered(clean_up: Callable[[], None]) -> Iterator[None]:
    """Have `clean_up_all` call a function, as long as the body lasts; it may be called by any thread."""
    _clean_ups.append(clean_up)
    try:
        yield
    finally:
        _clean_ups.remove(clean_up)


def removing(folder: Path, pattern: str = "") -> contextlib.AbstractContextManager[None]:
    """Have `clean_up_all` remove a folder, or the folders in it of these names."""

    def remove() -> None:
        for path in folder.glob(pattern) if pattern else [folder]:
            shutil.rmtree(path, ignore_errors=True)

    return registered(remove)


def clean_up_all() -> None:
    """Clean up what was begun, the last first."""
    for clean_up in reversed(_clean_ups.copy()):
        clean_up()
