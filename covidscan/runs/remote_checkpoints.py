"""Checkpoints in object stores, staged in a local folder.

Orbax cannot write arrays to s3:// (google/orbax#2739), and its errors on reading gs:// are the same for a failing
network and a damaged checkpoint. So each state is written to a local folder and uploaded in the background, and
downloaded before it is read. Orbax's commit file, written last, marks a checkpoint as complete.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import future

from tfds_mosmed import storage

_PROCESS_0_ONLY = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="staging")


def atomicity(directory: epath.Path) -> ocp.options.AtomicityOptions | None:
    """Return Orbax's option for object stores, where nothing can be renamed: a commit file; None for local folders."""
    if not storage.is_remote(directory):
        return None
    return ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)


def handlers(directory: epath.Path) -> ocp.handlers.CheckpointHandlerRegistry | None:
    """Return the handler of the item "state" in object stores; None for local folders, where Orbax's own is used."""
    if not storage.is_remote(directory):
        return None
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.PyTreeSave, _StagedStates())
    return registry


@contextlib.contextmanager
def local(folder: epath.Path) -> Iterator[epath.Path]:
    """Yield the same folder, or a temporary copy of a remote one; a folder that does not exist is not created.

    Raises:
      Exception: of the object store's library, where the store cannot be reached.
    """
    if not storage.is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="covidscan-") as temporary:
        copy = epath.Path(temporary) / folder.name
        if folder.exists():
            storage.copy_folder(folder, copy)
        yield copy


class _StagedStates(ocp.AsyncCheckpointHandler):
    """Saves pytrees of numpy arrays, which only process 0 has to write."""

    async def async_save(self, directory: epath.Path, args: ocp.args.PyTreeSave) -> list[future.Future] | None:
        """Write the state to a local folder, and upload it in the background."""
        if jax.process_index() != 0:
            return None
        temporary = tempfile.TemporaryDirectory(prefix="covidscan-")
        staged = epath.Path(temporary.name) / "state"
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_PROCESS_0_ONLY)
        with ocp.Checkpointer(handler, multiprocessing_options=_PROCESS_0_ONLY) as checkpointer:
            checkpointer.save(staged, args=args)

        async def upload() -> None:
            with temporary:
                await asyncio.to_thread(storage.copy_folder, staged, directory)

        return [future.CommitFutureAwaitingContractedSignals(upload(), name="staged_state")]

    def save(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: checkpoints are saved by `async_save`."""
        raise NotImplementedError

    def restore(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: checkpoints are restored from `local`."""
        raise NotImplementedError
