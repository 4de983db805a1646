"""Records in an object store, which are read from a local copy, since array_record needs local files.

The copy is made once on each machine, and again when the records in the object store have changed.
"""

import os
from pathlib import Path

from etils import epath

from tfds_mosmed import storage

# Files that differ between builds. TFDS regards records as built if the last of these exists: it is copied last.
MARKS = ("metadata.json", "dataset_info.json")


def local_copy(data_dir: epath.PathLike) -> Path:
    """Return the local folder for the copy of a remote --data_dir: below $XDG_CACHE_HOME, or ~/.cache."""
    scheme, _, rest = os.fspath(data_dir).partition("://")
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "covidscan" / "records" / scheme / rest


def _marks(folder: epath.Path) -> list[bytes] | None:
    if not all((folder / name).exists() for name in MARKS):
        return None
    return [(folder / name).read_bytes() for name in MARKS]


def fetch(remote: epath.Path, local: epath.Path) -> bool:
    """Update the local copy of records: afterwards it is complete and equal to the remote one, or both are absent.

    The caller holds the build lock of the local folder, which also removes what a killed copy left behind.

    Args:
      remote: remote folder DATA_DIR/NAME/CONFIG/VERSION.
      local: the same folder below `local_copy`.

    Returns:
      Whether the local folder has changed.
    """
    remote_marks = _marks(remote)
    if remote_marks == _marks(local):
        return False
    local.rmtree(missing_ok=True)
    if remote_marks is not None:
        partial = local.with_name(f"incomplete.copy_{local.name}")
        storage.copy_folder(remote, partial)
        storage.sync_tree(partial)
        partial.rename(local)
        storage.sync(local.parent)
    return True


def publish(local: epath.Path, remote: epath.Path) -> None:
    """Copy records that were just built to the object store; see `fetch`."""
    storage.copy_folder(local, remote, skip=MARKS)
    for name in MARKS:
        (local / name).copy(remote / name, overwrite=True)
