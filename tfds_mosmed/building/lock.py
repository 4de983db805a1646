"""Lock by which one process at a time builds a data set, and removes what a killed one left behind."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfds_mosmed.errors import UserError


@contextlib.contextmanager
def build_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock on building into a directory; unfinished builds beside it are removed.

    The operating system releases the lock when the process ends, however it ends. So while the lock is held, no other
    process is writing an unfinished build.

    Args:
      data_dir: of the records: DATA_DIR/NAME/CONFIG/VERSION.

    Raises:
      UserError: if nothing can be written there.
    """
    lock_path = data_dir.parent / f".{data_dir.name}.lock"
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("w")
    except OSError as error:
        raise UserError(
            f"{data_dir.parent}: cannot be written ({error.strerror}); give another --data_dir or fix its permissions"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for unfinished in data_dir.parent.glob(f"incomplete.*_{data_dir.name}"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield
