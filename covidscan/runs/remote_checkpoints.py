"""Checkpoints in object stores, by way of a folder of this machine.

Orbax cannot write arrays to s3:// (google/orbax#2739), and what it reads from gs:// does not tell a network that fails
from a checkpoint that is damaged. So each state is written here first and copied in the background, and copied back
before it is read. Orbax's commit file, written last, makes it a checkpoint.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import future

from covidscan.distributed import processes
from tfds_mosmed import storage

_FIRST_ALONE = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="staging")


def atomicity(directory: epath.Path) -> ocp.options.AtomicityOptions | None:
    """Tell Orbax how a checkpoint becomes whole: in object stores by a commit file, as nothing can be renamed there."""
    if not storage.is_remote(directory):
        return None
    return ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)


def handlers(directory: epath.Path) -> ocp.handlers.CheckpointHandlerRegistry | None:
    """Give Orbax the handler of the item "state" in object stores; otherwise Orbax's own do."""
    if not storage.is_remote(directory):
        return None
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.PyTreeSave, _StagedStates())
    return registry


@contextlib.contextmanager
def local(folder: epath.Path) -> Iterator[epath.Path]:
    """Give the same folder, or of a remote one a copy that lasts as long as the body; what is absent stays absent.

    Raises:
      Exception: of the object store's library, where it cannot be reached.
    """
    if not storage.is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="covidscan-") as place:
        copy = epath.Path(place) / folder.name
        if folder.exists():
            storage.copy_folder(folder, copy)
        yield copy


class _StagedStates(ocp.AsyncCheckpointHandler):
    """Saves numpy trees, which process 0 alone has to write."""

    async def async_save(self, directory: epath.Path, args: ocp.args.PyTreeSave) -> list[future.Future] | None:
        """Write the state to this machine, and copy it after this has returned."""
        if not processes.is_process_0():
            return None
        place = tempfile.TemporaryDirectory(prefix="covidscan-")
        staged = epath.Path(place.name) / "state"
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_FIRST_ALONE)
        with ocp.Checkpointer(handler, multiprocessing_options=_FIRST_ALONE) as checkpointer:
            checkpointer.save(staged, args=args)

        async def copy() -> None:
            with place:
                await asyncio.to_thread(storage.copy_folder, staged, directory)

        return [future.CommitFutureAwaitingContractedSignals(copy(), name="staged_state")]

    def save(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: Checkpoints save in the background."""
        raise NotImplementedError

    def restore(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: see `local`."""
        raise NotImplementedError
