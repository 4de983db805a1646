"""Devices and hosts. The one module that knows pmap.

The state goes in and comes out unmapped (`in_axes=None`, `out_axes=None`): replicated on the devices, never stacked.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tfds_mosmed.errors import UserError

REPLICAS = "replicas"


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache, so that the next start of the same network need not wait.

    JAX's own variable JAX_COMPILATION_CACHE_DIR names another folder.
    """
    from etils import epath  # what measures a network does without it

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = epath.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "covidscan" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        # JAX keeps what took a second to compile; a start has dozens of smaller programs, seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pmap_train_step(step: Callable) -> Callable:
    """Map a replica's (state, batch) -> (state, metrics, outputs) over all devices of all hosts.

    All three come out the same on every host. `pmap` cannot see a forgotten `pmean` or `all_gather`: what comes out
    unmapped must be equal on all replicas.
    """
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=None, donate_argnums=0)


def pmap_train_steps(train_steps: Callable) -> Callable:
    """Map a replica's (state, records, rows, number of steps) -> (state, metrics, outputs), as `pmap_train_step` does.

    The records are the same on all devices, the rows are each device's own.
    """
    return jax.pmap(train_steps, axis_name=REPLICAS, in_axes=(None, None, 0, None), out_axes=None, donate_argnums=0)


def pmap_eval_step(step: Callable) -> Callable:
    """Map a replica's (variables, volumes) -> outputs, gathered by it from all replicas, over all devices."""
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=None)


def pmap_to_shares(step: Callable) -> Callable:
    """Map a replica's (variables, share) -> another share over all devices, each of which keeps its own."""
    return jax.pmap(step, axis_name=REPLICAS, in_axes=(None, 0), out_axes=0)


def share_of_batch(batch_size: int) -> slice:
    """Give this process's rows of a global batch; pmap takes the devices process by process, in the same order.

    Raises:
      UserError: the devices cannot share the batch evenly.
    """
    devices = jax.device_count()
    if batch_size % devices:
        fitting = max(devices, batch_size - batch_size % devices)
        raise UserError(
            f"--batch_size={batch_size} is the global batch and must be divisible by the {devices} devices: "
            f"use --batch_size={fitting}"
        )
    rows = batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def to_replicas(batch: Any) -> Any:
    """Give this host's share of a batch (rows, …) a leading axis of local devices (device, rows, …)."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)


def columns_to_replicas(table: np.ndarray) -> np.ndarray:
    """Give this host's share of a table (step, row of the batch) a leading axis of local devices."""
    return np.stack(np.split(table, jax.local_device_count(), axis=1))


def _on_local_devices(*axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (REPLICAS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def send_to_replicas(batch: Any) -> Any:
    """Send this host's share of a batch to its devices, as `to_replicas` divides it; does not wait for its arrival."""
    return jax.device_put(to_replicas(batch), _on_local_devices(REPLICAS))


def replicate(tree: Any) -> Any:
    """Put one copy of a tree on each local device, so that mapped calls need not send it again."""
    return jax.device_put(tree, _on_local_devices())
