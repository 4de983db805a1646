"""Feeds of training records to the step: gathered on the devices, gathered on the host, or read as they are needed.

All three give the step the same batches.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from covidscan.data.records import read_fields, stream_fields
from covidscan.data.sampling import BatchOrder
from covidscan.distributed import devices, processes
from tfds_mosmed.errors import UserError

SHARE_OF_MEMORY = 0.25  # free memory that a cache may take
BATCHES_AHEAD = 2
IN_FLIGHT = 2  # dispatches by which the host may be ahead of the devices
STEPS_PER_DISPATCH = 16
STEPS_PER_DISPATCH_ON_CPU = 1  # inside a loop XLA's convolutions on CPUs are twenty times slower


class Batch(NamedTuple):
    """A replica's share of a global batch.

    Attributes:
      volume: (batch, slice, row, column), HU, int16.
      label: (batch,), int32; of regression float32.
      weight: (batch,), float32: each example's weight in the loss.
      lesion_mask: (batch, slice, row, column), uint8, or None where masks are not used.
      has_lesion_mask: (batch,), bool: whether the mask is known; or None.
    """

    volume: Any
    label: Any
    weight: Any
    lesion_mask: Any = None
    has_lesion_mask: Any = None


class TrainingRecords(NamedTuple):
    """Training records, with their labels, weights and order.

    Attributes:
      records: random access to all records.
      rows: indices of the training records.
      fields: of each record: "volume" (slice, row, column) int16, HU, and where masks are used "lesion_mask" of that
        shape, uint8, and "has_lesion_mask".
      labels: (row,), int32; of regression float32.
      weights: (row,) in the loss, float32.
      order: the rows of each step's batch.
      known_empty: (row,), bool: whether a study without a mask is known to have no lesion, as it has no disease; None
        where masks are not used.
      lesions_expected: whether every other study has lesions, so that an empty mask, where the grid or whoever drew it
        lost them, says nothing.
    """

    records: Sequence[dict[str, Any]]
    rows: np.ndarray
    fields: Sequence[str]
    labels: np.ndarray
    weights: np.ndarray
    order: BatchOrder
    known_empty: np.ndarray | None = None
    lesions_expected: bool = False

    def size(self) -> int:
        """Return the bytes that the fields of all rows take."""
        first = self.records[int(self.rows[0])]
        return len(self.rows) * sum(np.asarray(first[field]).nbytes for field in self.fields)

    def read(self) -> Batch:
        """Read all examples."""
        return self.batch(read_fields(self.records, self.rows, self.fields), slice(None))

    def batch(self, fields: dict[str, np.ndarray], indices: np.ndarray | slice) -> Batch:
        """Join the fields of the rows at `indices` with their labels and weights."""
        if self.known_empty is not None and "has_lesion_mask" in fields:  # a missing mask is stored as an empty one
            has_mask = fields["has_lesion_mask"]
            if self.lesions_expected:
                has_mask = has_mask & fields["lesion_mask"].any(axis=(1, 2, 3))
            fields = fields | {"has_lesion_mask": has_mask | self.known_empty[indices]}
        return Batch(**fields, label=self.labels[indices], weight=self.weights[indices])


def choose_cache(wanted: str, size: int) -> str:
    """Choose where the training records are cached: in what every host has. All processes call it.

    Args:
      wanted: --cache. "auto" chooses an accelerator's memory, or else the host's, if a quarter of it holds the records.
      size: of the records, bytes.

    Returns:
      "device", "host" or "none".

    Raises:
      UserError: the wanted memory is too small on one of the hosts; every process raises.
    """
    mib = processes.gather([value >> 20 for value in (devices.device_memory() or 0, devices.free_host_memory())])
    device, host = (int(smallest) << 20 for smallest in mib.min(0))
    memory = {"device": device, "host": host}
    if wanted == "auto":
        candidates = ["host"] if jax.default_backend() == "cpu" else ["device", "host"]
        return next((name for name in candidates if size <= SHARE_OF_MEMORY * memory[name]), "none")
    if wanted != "none" and memory[wanted] and size > memory[wanted]:
        raise UserError(
            f"--cache={wanted}: the training records take {size / 2**30:.1f} GiB, more than the "
            f"{wanted}'s {memory[wanted] / 2**30:.1f} GiB of memory: use --cache=auto"
        )
    return wanted


class Dispatch(NamedTuple):
    """Steps that were dispatched to the devices.

    Attributes:
      num_steps: number of steps.
      metrics: of the steps, see `TrainStep`; with a leading axis of steps if `stacked`.
      outputs: likewise.
      stacked: whether several steps were dispatched at once; the leading axis may be longer than `num_steps`.
    """

    num_steps: int
    metrics: dict[str, jax.Array]
    outputs: Any
    stacked: bool


class Feed(Protocol):
    """A function that takes steps on the training records."""

    def __call__(self, state: Any, step: int, max_steps: int) -> tuple[Any, Dispatch]:
        """Dispatch 1 to `max_steps` steps from the state after `step` steps; return the next state."""
        ...


def batch_feed(train_step: Callable, batches: Iterator[Batch]) -> Feed:
    """Feed batches of the host, which are sent to the devices ahead of their steps.

    Args:
      train_step: mapped, see `devices.pmap_train_step`.
      batches: this process's shares of the global batches, one per step.
    """
    sent, train_step = prefetch_to_devices(batches), devices.patient_at_first(train_step)

    def feed(state: Any, step: int, max_steps: int) -> tuple[Any, Dispatch]:
        state, metrics, outputs = train_step(state, next(sent))
        return state, Dispatch(1, metrics, outputs, stacked=False)

    return feed


def gather_batches(examples: Batch, order: BatchOrder, share: slice, steps: Iterable[int]) -> Iterator[Batch]:
    """Gather this process's shares of the batches from all examples.

    Args:
      examples: all of them, on the host.
      order: the examples of each step's batch.
      share: this process's rows of each global batch.
      steps: the steps.
    """
    for step in steps:
        indices = order.rows(step)[share]
        yield jax.tree.map(lambda values, indices=indices: values[indices], examples)


def stream_batches(training: TrainingRecords, share: slice, steps: Sequence[int]) -> Iterator[Batch]:
    """Read the records of each batch a little before its step; otherwise as `gather_batches`."""
    indices = np.stack([training.order.rows(step)[share] for step in steps])
    fields = stream_fields(training.records, training.rows[indices.ravel()], training.fields, indices.shape[1])
    for step_indices, values in zip(indices, fields, strict=True):
        yield training.batch(values, step_indices)


def prefetch_to_devices(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make batches and send them to the devices in a thread, a few ahead."""
    sent = map(devices.send_to_replicas, batches)
    with ThreadPoolExecutor(1) as thread:
        pending = collections.deque(thread.submit(next, sent, None) for _ in range(BATCHES_AHEAD))
        while (batch := pending.popleft().result()) is not None:
            pending.append(thread.submit(next, sent, None))
            yield batch


def device_feed(train_steps: Callable, examples: Batch, order: BatchOrder, share: slice) -> Feed:
    """Feed indices only: every device holds all examples and gathers the batches, several steps per dispatch.

    Args:
      train_steps: mapped, see `devices.pmap_train_steps`.
      examples: all of them, on the host.
      order: the examples of each step's batch.
      share: this process's rows of each global batch.
    """
    cache, train_steps = devices.replicate(examples), devices.patient_at_first(train_steps)
    steps_per_dispatch = STEPS_PER_DISPATCH_ON_CPU if jax.default_backend() == "cpu" else STEPS_PER_DISPATCH

    def feed(state: Any, step: int, max_steps: int) -> tuple[Any, Dispatch]:
        num_steps = min(max_steps, steps_per_dispatch)
        indices = np.zeros((steps_per_dispatch, share.stop - share.start), np.int32)
        for i in range(num_steps):
            indices[i] = order.rows(step + i)[share]
        state, metrics, outputs = train_steps(state, cache, devices.columns_to_replicas(indices), np.int32(num_steps))
        return state, Dispatch(num_steps, metrics, outputs, stacked=True)

    return feed
