"""Synthetic records, and batches of them."""

import itertools
from collections.abc import Iterator

import jax
import numpy as np

from covidscan.data.feed import Batch, gather_batches
from covidscan.data.sampling import BatchOrder
from covidscan.distributed import devices

LOWEST_HU, HIGHEST_HU = -1024, 600


def make_records(count: int, volume_shape: tuple[int, int, int]) -> Batch:
    """Make random records, cached in memory as in training.

    Args:
      count: number of records.
      volume_shape: (slice, row, column).

    Returns:
      All of them as one Batch on the host: random HU, labels 0 and 1, no lesion masks.
    """
    generator = np.random.default_rng(0)
    return Batch(
        volume=generator.integers(LOWEST_HU, HIGHEST_HU, (count, *volume_shape), np.int16),
        label=np.arange(count, dtype=np.int32) % 2,
        weight=np.ones(count, np.float32),
    )


def batches(records: Batch, batch_size: int) -> Iterator[Batch]:
    """Gather global batches without end, as training does from cached records.

    Args:
      records: of `make_records`.
      batch_size: of the global batch.

    Yields:
      A Batch on the host, (row, …).
    """
    order = BatchOrder(records.label, seed=0, class_balance="none", batch_size=batch_size)
    return gather_batches(records, order, slice(0, batch_size), itertools.count())


def abstract_shares(records: Batch, batch_size: int) -> Batch:
    """Return the shapes and dtypes of a global batch, (device, row, …), without allocating it."""

    def of_batch(field: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *field.shape[1:]), field.dtype)

    return jax.eval_shape(devices.to_replicas, jax.tree.map(of_batch, records))
