"""Checkpoints on S3. Orbax can write arrays to local folders and to gs://, not to s3:// (google/orbax#2739).

There each state is written by Orbax to a folder of this machine first, and copied in the background; Orbax's commit
file, written last, makes it a checkpoint. It is the same as on other storage, file by file.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator

import orbax.checkpoint as ocp
from etils import epath

from covidscan import hosts
from tfds_mosmed import storage

_FIRST_ALONE = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="staging")


def _is_needed(path: epath.PathLike) -> bool:
    return storage.is_remote(path) and not str(path).startswith("gs://")


def atomicity(directory: epath.Path) -> ocp.options.AtomicityOptions | None:
    """Tell Orbax how a checkpoint becomes whole: where staging is needed, by a commit file, as nothing can be renamed."""
    if not _is_needed(directory):
        return None
    return ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)


def handlers(directory: epath.Path) -> ocp.handlers.CheckpointHandlerRegistry | None:
    """Give Orbax the handler of the item "state" where staging is needed; otherwise Orbax's own do."""
    if not _is_needed(directory):
        return None
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.PyTreeSave, _StagedStates())
    return registry


@contextlib.contextmanager
def local(folder: epath.Path) -> Iterator[epath.Path]:
    """Give a folder that Orbax can read: the same one, or a copy that lasts as long as the body."""
    if not _is_needed(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="covidscan-") as place:
        copy = epath.Path(place) / folder.name
        storage.copy_folder(folder, copy)
        yield copy


class _StagedStates(ocp.AsyncCheckpointHandler):
    """Saves numpy trees, which process 0 alone has to write."""

    async def async_save(self, directory: epath.Path, args: ocp.args.PyTreeSave) -> list[ocp.future.Future] | None:
        """Write the state to this machine, and copy it after this has returned."""
        if not hosts.is_first():
            return None
        place = tempfile.TemporaryDirectory(prefix="covidscan-")
        staged = epath.Path(place.name) / "state"
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_FIRST_ALONE)
        with ocp.Checkpointer(handler, multiprocessing_options=_FIRST_ALONE) as checkpointer:
            checkpointer.save(staged, args=args)

        async def copy() -> None:
            with place:
                await asyncio.to_thread(storage.copy_folder, staged, directory)

        return [ocp.future.CommitFutureAwaitingContractedSignals(copy(), name="staged_state")]

    def save(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: Checkpoints save in the background."""
        raise NotImplementedError

    def restore(self, directory: epath.Path, *args, **kwargs) -> None:
        """Not used: see `local`."""
        raise NotImplementedError
