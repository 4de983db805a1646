"""Processes of one job: joining, waiting for each other, broadcasting, checking that all run the same experiment."""

import contextlib
import faulthandler
import hashlib
import importlib.util
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from covidscan.config import ProcessGroup
from covidscan.distributed import heartbeats, watchdog
from covidscan.distributed.exits import LostProcess, RunAgain
from covidscan.distributed.watchdog import Watchdog
from tfds_mosmed.errors import UserError, first_line

# For which processes that are done wait for process 0, which writes an evaluation alone, under its own watchdog.
END_TIMEOUT_S = 24 * 3600


@contextlib.contextmanager
def joined(given: ProcessGroup, peer_timeout: int) -> Iterator[None]:
    """Join the processes of this job, before anything else of JAX runs, for as long as the body lasts.

    The body is watched: it ends where nothing of it goes on for the same time. Waiting for the other processes is not
    limited but in steps and batches, which all take together: each has a watchdog of its own.

    Args:
      given: the user's flags; without them, the launcher's variables are used.
      peer_timeout: seconds after which this process ends if the others do not come.

    Raises:
      UserError: the other processes do not join.
      LostProcess: one of them is gone.
    """
    launcher = detect_launcher(os.environ) if given.num_processes is None else None
    if given.num_processes == 1 or not (launcher or given.num_processes):
        yield
        return
    dog = Watchdog(peer_timeout, "peer_timeout")
    name = f"process on {socket.gethostname()}" if given.process_id is None else f"process {given.process_id}"
    dog.expect(f"{name}: the other processes of this job did not come", "start all of them, with the same coordinator")
    try:
        jax.distributed.initialize(
            *given,
            local_device_ids=slurm_devices(os.environ),
            heartbeat_timeout_seconds=heartbeats.NEVER_S,
            initialization_timeout=peer_timeout + 60,  # JAX aborts then, with a stack dump
            shutdown_timeout_seconds=END_TIMEOUT_S,
        )
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        announced = f"{launcher} announced them; " if launcher else ""
        raise UserError(
            f"the processes of this job did not find each other ({first_line(error)}): {announced}give each "
            "--coordinator_address=HOST:PORT --num_processes=N --process_id=I"
        ) from error
    # JAX aborts a process whose peer is gone; Python's traceback of that abort would bury JAX's own message.
    faulthandler.disable()
    beats = heartbeats.Heartbeats()
    try:
        with watchdog.watched_by(dog):
            expect_progress()
            yield
        beats.end_together()
    except UserError:
        raise
    except RunAgain:
        # JAX would abort a process that is still running when process 0 has left.
        beats.end_together()
        raise
    except Exception as error:
        if is_from_lost_process(error):
            raise LostProcess(
                f"process {jax.process_index()} lost another process of the job ({first_line(error)}); "
                "run the same command again on every host"
            ) from error
        raise


def expect_progress() -> None:
    """Have the watchdog expect that this process goes on, whatever it does."""
    watchdog.current().expect(
        f"process {jax.process_index()}: nothing was read or computed",
        "its storage or a process of the job hangs; run the same command again on every host",
    )


def is_from_lost_process(error: BaseException | None) -> bool:
    """Return whether an error, or a cause of it, means that another process of the job is gone."""
    while error is not None:
        # Orbax raises an error of its background thread as another type, with the same text.
        signs = ("Gloo", "NCCL")
        if isinstance(error, jax.errors.JaxRuntimeError):
            signs = (*signs, "oordination", "eartbeat", "UNAVAILABLE")
        if any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def detect_launcher(environ: Mapping[str, str]) -> str | None:
    """Return the name of the launcher that started several processes, by the variables that JAX reads; or None.

    Processes of such a job that did not join it would become N single runs in one workdir.

    Args:
      environ: of this process.

    Raises:
      UserError: joining the job needs the launcher's own library, which is not installed.
    """
    if "SLURM_STEP_NODELIST" in environ and int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return "Slurm"
    if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return "Open MPI"
    if "JOB_COMPLETION_INDEX" in environ:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "this is a pod of an indexed Kubernetes Job: give --coordinator_address=HOST:PORT --num_processes=N "
                "--process_id=$JOB_COMPLETION_INDEX, or pip install kubernetes so that JAX can ask the cluster"
            )
        return "Kubernetes"
    on_tpu = (environ.get("JAX_PLATFORMS") or "tpu").startswith("tpu") and importlib.util.find_spec(
        "libtpu"
    ) is not None
    if on_tpu and (list(Path("/dev").glob("accel*")) or list(Path("/dev").glob("vfio/*"))):
        return "the TPU VM"
    return None


def slurm_devices(environ: Mapping[str, str]) -> list[int] | None:
    """Return all of a node's GPUs if it runs one task, else None; JAX would assign one, assuming one task per GPU."""
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    gpus = int(environ.get("SLURM_GPUS_ON_NODE", "0"))
    return list(range(gpus)) if alone and gpus else None


def is_process_0() -> bool:
    """Return whether this is process 0, the only one that logs and writes."""
    return jax.process_index() == 0


def broadcast_from_process_0(value: Any) -> Any:
    """Broadcast a JSON value from process 0: two hosts may see a shared folder differently for some seconds.

    Args:
      value: of process 0; that of the others is ignored.
    """
    if jax.process_count() == 1:
        return value
    encoded = np.frombuffer(json.dumps(value if is_process_0() else None).encode(), np.uint8)
    with watchdog.current().resting():
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
        padded = encoded if is_process_0() else np.zeros(length, np.uint8)
        return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())


def gather(values: Sequence[int]) -> np.ndarray:
    """Gather integers below 2**31 of each process, (process, value); all processes call it."""
    with watchdog.current().resting():
        return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32))).reshape(-1, len(values))


def decided_by_process_0(decide: Callable[[], Any]) -> Any:
    """Return the JSON value that process 0 decides on, the same on every process; where it fails, every one raises.

    Args:
      decide: called by process 0 alone.

    Raises:
      UserError: of process 0.
    """
    value, failure = None, None
    if is_process_0():
        try:
            value = decide()
        except (UserError, OSError) as error:
            failure = error
    value, reason = broadcast_from_process_0([value, failure and str(failure)])
    if failure:
        raise failure
    if reason:
        raise UserError(reason)
    return value


@contextlib.contextmanager
def entered_by_process_0(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enter a context on process 0 alone, for as long as the body lasts; where that fails, every process raises.

    Raises:
      UserError: of process 0.
    """
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        decided_by_process_0(enter)
        yield


def wait_for_all(barrier: str) -> None:
    """Wait until every process has reached the barrier of this name."""
    with watchdog.current().resting():
        multihost_utils.sync_global_devices(barrier)


def check_agreement(config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Check that every process runs the same experiment on the same studies; paths and versions may differ.

    Args:
      config: the flags, as config.json has them.
      data: the data set and its split, as config.json has them.

    Raises:
      UserError: the processes differ; each of them raises.
    """
    if jax.process_count() == 1:
        return
    same = json.dumps([config, data], sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(same.encode()).digest(), np.uint8)
    with watchdog.current().resting():
        digests = multihost_utils.process_allgather(digest)
    others = [process for process, other in enumerate(digests) if not np.array_equal(other, digests[0])]
    if others:
        raise UserError(
            f"process {others[0]} was started with other flags or finds other studies than process 0: start all with "
            "the same flags, and build --data_dir from the same studies on every host"
        )
