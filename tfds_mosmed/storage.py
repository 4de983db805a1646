"""File operations that differ between local folders and object stores (gs://, s3://), on `etils.epath.Path`."""

import contextlib
import errno
import fcntl
import importlib.util
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from etils import epath
from fsspec import config as fsspec_config

from tfds_mosmed import early_exit
from tfds_mosmed.errors import UserError, first_line

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
PARTIAL = ".partial"  # end of the name of what is being written

os.environ.setdefault("EPATH_USE_TF", "false")  # TensorFlow, if it is installed, cannot open s3://
for _scheme in PACKAGES:
    # Other processes write to the same folders, so a cached listing may be out of date.
    fsspec_config.conf.setdefault(_scheme, {})["use_listings_cache"] = False


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is in an object store."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Return the absolute path; pathlib would put an object store below the current folder."""
    path = epath.Path(path)
    return path if is_remote(path) else path.absolute()


def check(path: epath.PathLike) -> None:
    """Check that a path in an object store can be reached; a local path always passes.

    Args:
      path: value of a flag.

    Raises:
      UserError: if the kind of store is unknown, its package is missing, or its bucket cannot be listed.
    """
    if not is_remote(path):
        return
    scheme, _, rest = os.fspath(path).partition("://")
    if scheme not in PACKAGES:
        raise UserError(f"{path}: give a folder of this machine, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER")
    if importlib.util.find_spec(PACKAGES[scheme]) is None:
        raise UserError(f"{path}: {scheme}:// needs one more package: pip install {PACKAGES[scheme]}")
    bucket = f"{scheme}://{rest.partition('/')[0]}"
    try:
        epath.Path(bucket).stat()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no bucket {bucket}: create it first") from error
    except Exception as error:  # each store's library raises its own classes
        raise UserError(
            f"{path}: {bucket} cannot be listed ({first_line(error)}): check your credentials for it, and the network"
        ) from error


def write_whole(path: epath.PathLike, data: bytes) -> None:
    """Write a file atomically, over an earlier one of that name; object stores do so by themselves.

    When this returns, the file survives a power cut. Several processes may write the same file.
    """
    path = epath.Path(path)
    if is_remote(path):
        path.write_bytes(data)
        return
    sweep(path.parent)
    descriptor, partial = _create_partial(Path(path).parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    sync(path.parent)


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Add a file or folder to an OSError of writing it, where Python omits it, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def _create_partial(folder: Path) -> tuple[int, Path]:
    while True:
        path = folder / f".{secrets.token_hex(8)}{PARTIAL}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try_lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # else another process removed it before it was locked
            return descriptor, path
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed or the process ends; return whether no other process holds it.

    Raises:
      OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusive(path: epath.PathLike) -> Iterator[bool]:
    """Let one process at a time read, change and write a local file or folder, as long as the body lasts.

    An object store has no locks: of two changes at the same moment one may be lost there.

    Args:
      path: of the file or folder; the lock is a hidden file beside it.

    Yields:
      Whether there is a lock: object stores and some file systems have none.
    """
    if is_remote(path):
        yield False
        return
    lock_path = Path(path).with_name(f".{Path(path).name}.lock")
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            is_locked = True
        except OSError:
            is_locked = False
        yield is_locked


def sync(path: epath.PathLike) -> None:
    """Wait until a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(descriptor)


def sync_tree(folder: epath.PathLike) -> None:
    """Wait until a local folder and all that is in it survive a power cut, but for its name in its parent."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(os.path.join(place, name))
        sync(place)


def make_folder(folder: epath.PathLike) -> None:
    """Make a folder and its parents where they are missing; they survive a power cut."""
    folder = absolute(folder)
    missing = [path for path in (folder, *folder.parents) if not is_remote(folder) and not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


@contextlib.contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Make a folder to write into; what the body does not rename is removed, at the latest by `sweep`."""
    sweep(parent)
    while (made := _create_partial_folder(parent)) is None:
        pass
    folder, descriptor = made
    try:
        with early_exit.removing(folder):
            yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _create_partial_folder(parent: Path) -> tuple[Path, int] | None:
    """Make and lock a folder; None if another process's `sweep` came between."""
    folder = parent / f".{secrets.token_hex(8)}{PARTIAL}"
    folder.mkdir()
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        is_locked = try_lock(descriptor)
    except OSError:  # a file system without locks on folders: `sweep` leaves it there
        is_locked = True
    if is_locked and folder.exists():
        return folder, descriptor
    os.close(descriptor)
    return None


def sweep(folder: epath.PathLike) -> None:
    """Remove what processes that were killed, or whose machine lost power, left half written in a local folder.

    Each write into a folder does so, too.
    """
    if is_remote(folder) or not Path(folder).is_dir():
        return
    for path in Path(folder).iterdir():
        if not path.name.startswith(".") or not path.name.endswith(PARTIAL):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, not ours, or no locks here
            descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            try:
                if try_lock(descriptor):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def copy_folder(source: epath.Path, target: epath.Path, skip: tuple[str, ...] = ()) -> None:
    """Copy the files of a folder into another one, to or from an object store.

    Args:
      source: local or remote folder.
      target: local or remote folder, created if missing; other files in it stay.
      skip: names directly in `source` that are left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name in skip:
            continue
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            path.copy(target / path.name, overwrite=True)


def move_folder(source: epath.Path, target: epath.Path) -> None:
    """Move a folder, creating the target's parent. In an object store it is copied and deleted."""
    if is_remote(source):
        copy_folder(source, target)
        source.rmtree()
        return
    target.parent.mkdir(exist_ok=True)
    source.rename(target)
    sync(target.parent)
    sync(source.parent)


def remove_command(path: epath.PathLike) -> str:
    """Return the command that removes a folder and all that is in it."""
    programs = {"gs": "gcloud storage rm --recursive", "s3": "aws s3 rm --recursive"}
    scheme = os.fspath(path).partition("://")[0]
    return f"{programs.get(scheme, 'rm -r')} {shlex.quote(os.fspath(path))}"


class GrowingFile:
    """File in an object store, which cannot append: it is kept in memory, and `flush` writes all of it.

    Args:
      path: remote path of the file.
      data: initial content.
    """

    def __init__(self, path: epath.PathLike, data: bytes = b""):
        self._path = epath.Path(path)
        self._data = bytearray(data)
        self._flushed = -1

    def write(self, data: bytes) -> None:
        """Append to the content in memory."""
        self._data += data

    def flush(self) -> None:
        """Write the file if its content has grown."""
        if self._flushed != len(self._data):
            self._path.write_bytes(bytes(self._data))
            self._flushed = len(self._data)

    def close(self) -> None:
        """Write the file for the last time."""
        self.flush()
