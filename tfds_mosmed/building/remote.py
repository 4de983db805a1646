"""Records in an object store: read from a copy on this machine, as array_record writes, and mostly reads, local files.

The object store is the truth. The copy is made once for each machine, and again when the records have changed there.
"""

import os
from pathlib import Path

from etils import epath

from tfds_mosmed import storage

# What tells one build from another; TFDS takes records for built where the last of these is, so it is copied last.
MARKS = ("metadata.json", "dataset_info.json")


def local_copy(data_dir: epath.PathLike) -> Path:
    """Name the folder of this machine that stands for a remote --data_dir: below $XDG_CACHE_HOME, or ~/.cache."""
    scheme, _, rest = os.fspath(data_dir).partition("://")
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "covidscan" / "records" / scheme / rest


def _marks(folder: epath.Path) -> list[bytes] | None:
    if not all((folder / name).exists() for name in MARKS):
        return None
    return [(folder / name).read_bytes() for name in MARKS]


def fetch(remote: epath.Path, local: epath.Path) -> bool:
    """Make the local folder of records what the remote one is: whole and the same, or absent.

    The caller holds the build lock of the local folder, which also removes what a killed copy left.

    Args:
      remote: DATA_DIR/NAME/CONFIG/VERSION.
      local: the same below `local_copy`.

    Returns:
      Whether the local folder has changed.
    """
    there = _marks(remote)
    if there == _marks(local):
        return False
    local.rmtree(missing_ok=True)
    if there is not None:
        partial = local.with_name(f"incomplete.copy_{local.name}")
        storage.copy_folder(remote, partial)
        partial.rename(local)
    return True


def publish(local: epath.Path, remote: epath.Path) -> None:
    """Copy records that were just built to where they belong; see `fetch`."""
    storage.copy_folder(local, remote, skip=MARKS)
    for name in MARKS:
        (local / name).copy(remote / name, overwrite=True)
