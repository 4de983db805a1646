"""The processes of one job: how they find each other, wait for each other, and agree."""

import contextlib
import faulthandler
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from covidscan.cli.command import LostProcess, RunAgain
from covidscan.config import ProcessGroup
from tfds_mosmed.errors import UserError

# A process that is silent for as long is taken for dead, and all others stop. JAX's own 100 s would be too long to wait
# for; much less would take a host that swaps for dead.
SILENCE_S = 40


@contextlib.contextmanager
def joined(given: ProcessGroup) -> Iterator[None]:
    """Join the processes of this job, before anything else of JAX runs, for as long as the body lasts.

    Does nothing where this process is the only one.

    Args:
      given: what the user said; where that is nothing, the launcher is asked.

    Raises:
      UserError: the other processes do not come.
      LostProcess: one of them is gone.
    """
    launcher = announced_by(os.environ) if given.num_processes is None else None
    if given.num_processes == 1 or not (launcher or given.num_processes):
        yield
        return
    try:
        jax.distributed.initialize(
            *given, local_device_ids=slurm_devices(os.environ), heartbeat_timeout_seconds=SILENCE_S
        )
    except (RuntimeError, ValueError, TypeError) as error:
        announced = f"{launcher} announced them; " if launcher else ""
        raise UserError(
            f"the processes of this job did not find each other ({str(error).splitlines()[0]}): {announced}give each "
            "--coordinator_address=HOST:PORT --num_processes=N --process_id=I"
        ) from error
    # JAX aborts a process whose peer is silent; what Python would print of that abort buries JAX's own words.
    faulthandler.disable()
    try:
        yield
    except UserError:
        raise
    except RunAgain:
        # All stop together. One that is still here when process 0 has left would be aborted by JAX.
        jax.distributed.shutdown()
        raise
    except Exception as error:
        if tells_of_lost_process(error):
            raise LostProcess(
                f"process {jax.process_index()} lost another process of the job ({str(error).splitlines()[0]})"
            ) from error
        raise


def tells_of_lost_process(error: BaseException | None) -> bool:
    """Tell whether an error, or one that caused it, came about because another process of the job is gone."""
    while error is not None:
        # Orbax gives an error of its background thread another kind, and keeps its text.
        signs = ("Gloo", "NCCL")
        if isinstance(error, jax.errors.JaxRuntimeError):
            signs = (*signs, "oordination", "eartbeat", "UNAVAILABLE")
        if any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def announced_by(environ: Mapping[str, str]) -> str | None:
    """Name the launcher that announces several processes by its variables, as `jax.distributed` reads them; or None.

    A job that is announced and then not joined would become N single runs in one workdir.

    Args:
      environ: of this process.

    Raises:
      UserError: a job is announced in a way that only its launcher's own library could follow.
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
    if on_tpu and (list(epath.Path("/dev").glob("accel*")) or list(epath.Path("/dev").glob("vfio/*"))):
        return "the TPU VM"
    return None


def slurm_devices(environ: Mapping[str, str]) -> list[int] | None:
    """Give all of a node's GPUs to its only task; JAX would give it one, as if there were a task a GPU."""
    alone = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    gpus = int(environ.get("SLURM_GPUS_ON_NODE", "0"))
    return list(range(gpus)) if alone and gpus else None


def is_first() -> bool:
    """Tell whether this is process 0, which alone logs and writes."""
    return jax.process_index() == 0


def as_first_says(value: Any) -> Any:
    """Give every process what process 0 knows: two hosts may see a shared folder differently for some seconds.

    Args:
      value: of process 0, as JSON can hold it; that of the others is not looked at.
    """
    if jax.process_count() == 1:
        return value
    said = np.frombuffer(json.dumps(value if is_first() else None).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    padded = said if is_first() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())


def wait_for_all(where: str) -> None:
    """Wait until every process has come to the same place, named by a text."""
    multihost_utils.sync_global_devices(where)


def check_agreement(description: Mapping[str, Any]) -> None:
    """Check that every process runs the same experiment on the same studies.

    Args:
      description: what config.json holds.

    Raises:
      UserError: the processes differ; each of them raises.
    """
    if jax.process_count() == 1:
        return
    # Paths and versions of the hosts may differ without changing what is trained.
    same = json.dumps([description["config"], description["data"]], sort_keys=True)
    mine = np.frombuffer(hashlib.sha256(same.encode()).digest(), np.uint8)
    everyone = multihost_utils.process_allgather(mine)
    others = [process for process, digest in enumerate(everyone) if not np.array_equal(digest, everyone[0])]
    if others:
        raise UserError(
            f"process {others[0]} was started with other flags or finds other studies than process 0: start all with "
            "the same flags, and build --data_dir from the same studies on every host"
        )
