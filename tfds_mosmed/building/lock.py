"""Lock by which one process at a time builds a data set, and removes what a killed one left behind."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfds_mosmed import early_exit, storage
from tfds_mosmed.errors import UserError


@contextlib.contextmanager
def build_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock on building into a directory; unfinished builds beside it are removed.

    The operating system releases the lock when the process ends, however it ends. So while the lock is held, no other
    process is writing an unfinished build; on a file system without locks they are left there.

    Args:
      data_dir: of the records: DATA_DIR/NAME/CONFIG/VERSION.

    Raises:
      UserError: if nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        try:
            storage.make_folder(data_dir.parent)
            is_alone = stack.enter_context(storage.exclusive(data_dir))
        except OSError as error:
            raise UserError(
                f"{data_dir.parent}: cannot be written ({error.strerror}); give another --data_dir or fix its "
                "permissions"
            ) from error
        if is_alone:
            pattern = f"incomplete.*_{data_dir.name}"
            for unfinished in data_dir.parent.glob(pattern):
                shutil.rmtree(unfinished, ignore_errors=True)
            stack.enter_context(early_exit.removing(data_dir.parent, pattern))
        yield
