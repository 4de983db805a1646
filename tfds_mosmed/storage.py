"""File operations that differ between local folders and object stores (gs://, s3://), on `etils.epath.Path`."""

import importlib.util
import os

from etils import epath
from fsspec import config as fsspec_config

from tfds_mosmed.errors import UserError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}

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
            f"{path}: {bucket} cannot be listed ({_reason(error)}): check your credentials for it, and the network"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def write_whole(path: epath.Path, data: bytes) -> None:
    """Write a file atomically, over an earlier one of that name; object stores do so by themselves."""
    if is_remote(path):
        path.write_bytes(data)
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


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
