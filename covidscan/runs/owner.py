"""Owner of a run: the one job that trains in its workdir.

WORKDIR/.owner names the host, the process and the time at which it started. The process holds a lock on that file,
which the operating system releases when the process ends, however it ends. Where other hosts share the workdir and
their locks cannot be relied on, the file's time is the owner's heartbeat.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from tfds_mosmed import storage
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line

FILE = ".owner"
HEARTBEAT_S = 5.0
STALE_S = 30.0  # an owner on another host that shows no heartbeat for this long counts as dead
REMOTE_FACTOR = 4  # both are longer in an object store, where a heartbeat is a request


@contextlib.contextmanager
def owned(workdir: epath.PathLike) -> Iterator[None]:
    """Own a run for as long as the body lasts; one process of a job does.

    An object store has no locks: heartbeats alone decide there, and two jobs that start in the same moment may both go
    on.

    Raises:
      UserError: another job trains there; the message names it.
      OSError: the workdir cannot be written.
    """
    path = epath.Path(workdir) / FILE
    storage.make_folder(path.parent)
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": secrets.token_hex(8),
    }
    held = _take_remote(path, owner) if storage.is_remote(path) else _take(Path(path), owner)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, owner, ended), name="owner", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        if _read(path) == owner:
            path.unlink(missing_ok=True)
        held.close()


def _take(path: Path, owner: dict[str, Any]) -> contextlib.ExitStack:
    """Lock the file and write the owner into it; the lock lasts until what is returned is closed."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(path.open("a+b"))
            try:
                has_lock: bool | None = storage.try_lock(lock.fileno())
            except OSError:
                has_lock = None  # the file system has no locks
            other = _read(path)
            if other is None and has_lock is False:  # its owner is about to write its name
                time.sleep(0.1)
                continue
            if other is not None and _is_alive(path, other, owner, has_lock):
                raise _taken(path, other)
            if has_lock is False:  # the locks of a dead host, which the file server still keeps: take another file
                storage.write_whole(path, b"")
                continue
            if not _is_current(path, lock.fileno()):  # its owner has removed it in this moment
                continue
            lock.truncate(0)
            lock.write(json.dumps(owner).encode() + b"\n")
            lock.flush()
            os.fsync(lock.fileno())
            return stack.pop_all()
    raise _taken(path, None)


def _take_remote(path: epath.Path, owner: dict[str, Any]) -> contextlib.ExitStack:
    other = _read(path)
    if other is not None and _is_alive(path, other, owner, None):
        raise _taken(path, other)
    path.write_text(json.dumps(owner) + "\n")
    if _read(path) != owner:
        raise _taken(path, _read(path))
    return contextlib.ExitStack()


def _read(path: epath.PathLike) -> dict[str, Any] | None:
    """Read who owns a run; None where that cannot be told."""
    try:
        other = json.loads(epath.Path(path).read_text())
        return other if {"host", "process", "since", "token"} <= other.keys() else None
    except (OSError, *NOT_AS_WRITTEN):
        return None


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_alive(path: epath.PathLike, other: dict[str, Any], owner: dict[str, Any], has_lock: bool | None) -> bool:
    if other["host"] == owner["host"]:
        if has_lock is not None:
            return not has_lock
        if other["process"] == owner["process"] or not Path(f"/proc/{other['process']}").exists():
            return False
    seconds = STALE_S * (REMOTE_FACTOR if storage.is_remote(path) else 1)
    logging.warning("%s: looking for up to %.0f s whether %s still trains there", path, seconds, _name(other))
    deadline, first = time.monotonic() + seconds, _heartbeat(path)
    while time.monotonic() < deadline:
        time.sleep(HEARTBEAT_S / 5)
        if _heartbeat(path) != first:
            return _read(path) is not None  # None: it has just ended
    return False


def _heartbeat(path: epath.PathLike) -> int | float | None:
    """Return the file's time, unlike any clock of this host."""
    try:
        if storage.is_remote(path):
            return epath.Path(path).stat().mtime
        with open(path, "rb") as file:  # network file systems may show an older time of a file that is not opened
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _beat(path: epath.Path, owner: dict[str, Any], ended: threading.Event) -> None:
    """Show that the owner is alive; end the process where another one has taken the run, as this host seemed dead."""
    remote = storage.is_remote(path)
    while not ended.wait(HEARTBEAT_S * (REMOTE_FACTOR if remote else 1)):
        other = _read(path)
        if other is not None and other != owner:
            message = one_line(f"error: {path.parent} was taken over by {_name(other)}: this job ends")
            print(message, file=sys.stderr, flush=True)
            os._exit(1)
        with contextlib.suppress(Exception):  # of the object store; the next beat may pass
            if remote:
                path.write_text(json.dumps(owner) + "\n")
            elif other is not None:
                os.utime(path)


def _name(other: dict[str, Any]) -> str:
    return f"process {other['process']} on {other['host']} (since {other['since']})"


def _taken(path: epath.PathLike, other: dict[str, Any] | None) -> UserError:
    workdir = os.path.dirname(os.fspath(path))
    name = "another job" if other is None else _name(other)
    return UserError(
        f"--workdir={workdir} is in training by {name}: wait for it, stop it with a file {workdir}/stop, or give "
        "another --workdir"
    )
