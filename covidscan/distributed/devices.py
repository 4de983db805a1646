"""Devices: mapping over replicas, sharing batches, memory, the compilation cache. The one module that uses pmap.

The state goes in and comes out unmapped (`in_axes=None`, `out_axes=None`): replicated on the devices, never stacked.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from covidscan.distributed import checked_cache, watchdog
from tfds_mosmed.errors import UserError

REPLICAS = "replicas"


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that later starts of the same network compile nothing.

    JAX's own variable JAX_COMPILATION_CACHE_DIR names another folder, which other programs may share.
    """
    from etils import epath  # imported lazily: the benchmark runs without it

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = epath.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "covidscan" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        # JAX keeps what took a second to compile; a start has dozens of smaller programs, seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        checked_cache.enable()


def pmap_train_step(step: Callable, on: Sequence[Any] | None = None) -> Callable:
    """Map a replica's (state, batch) -> (state, metrics, outputs) over all devices of all hosts, or over those given.

    All three are the same on every host. `pmap` cannot detect a forgotten `pmean` or `all_gather`: an unmapped result
    must be equal on all replicas.
    """
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=on)


def pmap_train_steps(train_steps: Callable) -> Callable:
    """Map a replica's (state, records, rows, number of steps) -> (state, metrics, outputs), as `pmap_train_step` does.

    The records are the same on all devices, the rows are each device's own.
    """
    return jax.pmap(train_steps, axis_name=REPLICAS, in_axes=(None, None, 0, None), out_axes=None, donate_argnums=0)


def pmap_eval_step(step: Callable, on: Sequence[Any] | None = None) -> Callable:
    """Map a replica's (variables, volumes) -> outputs, which it gathers from all, over all devices or those given."""
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=None, devices=on)


def patient_at_first(function: Callable) -> Callable:
    """Return a mapped function whose first call, in which all hosts compile, the watchdog does not watch."""
    compiled = False

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled:
            return function(*arguments)
        with watchdog.current().resting():
            result = jax.block_until_ready(function(*arguments))
        compiled = True
        return result

    return call


def pmap_to_shares(step: Callable) -> Callable:
    """Map a replica's (variables, share) -> another share over all devices, each of which keeps its own."""
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=0)


def share_of_batch(batch_size: int, *, resumes: bool = False) -> slice:
    """Return this process's rows of a global batch; pmap takes the devices process by process, in the same order.

    Args:
      batch_size: of the global batch.
      resumes: whether it is that of a run that goes on, which must keep it.

    Raises:
      UserError: the batch size is not divisible by the number of devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        fitting = f"use --batch_size={max(devices, batch_size - batch_size % devices)}"
        if resumes:
            fitting = f"the run was trained with it, so resume on a number of devices that divides {batch_size}"
        raise UserError(
            f"--batch_size={batch_size} is the global batch and must be divisible by the {devices} devices: {fitting}"
        )
    rows = batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def to_replicas(batch: Any) -> Any:
    """Reshape this host's share of a batch (rows, …) to a leading axis of local devices (device, rows, …)."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)


def columns_to_replicas(table: np.ndarray) -> np.ndarray:
    """Reshape this host's share of a table (step, row of the batch) to (device, step, row of the device)."""
    return np.stack(np.split(table, jax.local_device_count(), axis=1))


def _on_local_devices(*axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (REPLICAS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def send_to_replicas(batch: Any) -> Any:
    """Send this host's share of a batch to its devices, divided as by `to_replicas`, without waiting for the copy."""
    return jax.device_put(to_replicas(batch), _on_local_devices(REPLICAS))


def replicate(tree: Any) -> Any:
    """Put one copy of a tree on each local device, so that mapped calls need not send it again."""
    return jax.device_put(tree, _on_local_devices())


def free_host_memory() -> int:
    """Return the bytes that a new program may take of the host's memory without swapping, within its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
        limits.append(int(limit) - int((group / "memory.current").read_text()))
    return min(limits)


def device_memory() -> int | None:
    """Return the bytes of a local device's memory, or None if it is unknown; CPU devices share the host's."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return free_host_memory()
    return (device.memory_stats() or {}).get("bytes_limit")
