"""Checkpoints that survive a power cut, and a clock that is set. Orbax itself waits for no write to reach the disk."""

import asyncio
import os
import time
import types

from etils import epath
from orbax.checkpoint._src.checkpointers import async_checkpointer
from orbax.checkpoint._src.futures import future, signaling_client
from orbax.checkpoint._src.path import atomicity

from tfds_mosmed import storage

# Orbax measures the time limits of a save by the wall clock: setting that forward would end the run.
_steady = types.ModuleType("time")
vars(_steady).update(vars(time), time=time.monotonic)
for _module in (async_checkpointer, future, signaling_client):
    vars(_module)["time"] = _steady


class DurablePath(atomicity.AtomicRenameTemporaryPath):
    """Folder of a checkpoint that takes its final name when all of it is on the disk.

    Orbax removes older checkpoints after that. It runs in the background, beside the training.
    """

    async def finalize(self) -> None:
        """Write the last files, wait for the disk, rename, and wait for the disk again."""
        final = self._final_path
        complete = final.with_name(f"{final.name}{atomicity.TMP_DIR_SUFFIX}-complete")  # still a temporary name
        self._final_path = complete
        try:
            await super().finalize()
        finally:
            self._final_path = final
        await asyncio.to_thread(_publish, complete, final)


def _publish(complete: epath.Path, final: epath.Path) -> None:
    storage.sync_tree(complete)
    workdir = final.parent.parent
    for path in workdir.iterdir():
        if path.is_file() and os.access(path, os.R_OK, effective_ids=True):  # the log up to this checkpoint
            storage.sync(path)
    complete.rename(final)
    storage.sync(final.parent)
    storage.sync(workdir)
