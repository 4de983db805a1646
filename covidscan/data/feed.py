"""How training records reach the step: gathered on the devices, gathered on the host, or read as they are needed.

What a step sees is the same in all three.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from covidscan.data.records import read_fields, stream_fields
from covidscan.data.sampling import BatchOrder
from covidscan.distributed import devices
from tfds_mosmed.errors import UserError

SHARE_OF_MEMORY = 0.25  # that a cache may take
BATCHES_AHEAD = 2
IN_FLIGHT = 2  # dispatches that the devices may be behind the host
STEPS_PER_DISPATCH = 16
STEPS_PER_DISPATCH_ON_CPU = 1  # in a loop XLA's convolutions on CPUs are twenty times slower


class Batch(NamedTuple):
    """A replica's share of a global batch.

    Attributes:
      volume: (batch, slice, row, column), HU, int16.
      label: (batch,), int32.
      weight: (batch,), float32: each example's weight in the loss.
      lesion_mask: (batch, slice, row, column), uint8, or None where lesions are not learned from.
      has_lesion_mask: (batch,), bool, or None.
    """

    volume: Any
    label: Any
    weight: Any
    lesion_mask: Any = None
    has_lesion_mask: Any = None


class TrainingRecords(NamedTuple):
    """What a run trains on.

    Attributes:
      records: random access to all records.
      rows: those that train.
      fields: of each record: "volume" (slice, row, column) int16, HU, and where lesions are learned from
        "lesion_mask" of that shape, uint8, and "has_lesion_mask".
      labels: (row,) of these, int32.
      weights: (row,) of these in the loss, float32.
      order: which of the rows each step takes.
    """

    records: Sequence[dict[str, Any]]
    rows: np.ndarray
    fields: Sequence[str]
    labels: np.ndarray
    weights: np.ndarray
    order: BatchOrder

    def size(self) -> int:
        """Tell how many bytes the fields of all rows take."""
        first = self.records[int(self.rows[0])]
        return len(self.rows) * sum(np.asarray(first[field]).nbytes for field in self.fields)

    def read(self) -> Batch:
        """Read all examples."""
        return self.batch(read_fields(self.records, self.rows, self.fields), slice(None))

    def batch(self, fields: dict[str, np.ndarray], places: np.ndarray | slice) -> Batch:
        """Give the examples at some places, whose records' fields are known."""
        return Batch(**fields, label=self.labels[places], weight=self.weights[places])


def choose_cache(wanted: str, size: int) -> str:
    """Choose where the training records are kept.

    Args:
      wanted: --cache. "auto" takes an accelerator's memory, or the host's, where a quarter of what is free holds them.
      size: of the records, bytes.

    Returns:
      "device", "host" or "none".

    Raises:
      UserError: what is wanted cannot hold them.
    """
    memory = {"device": devices.device_memory() or 0, "host": devices.free_host_memory()}
    if wanted == "auto":
        places = ["host"] if jax.default_backend() == "cpu" else ["device", "host"]
        return next((place for place in places if size <= SHARE_OF_MEMORY * memory[place]), "none")
    if wanted != "none" and memory[wanted] and size > memory[wanted]:
        raise UserError(
            f"--cache={wanted}: the training records take {size / 2**30:.1f} GiB, more than the "
            f"{memory[wanted] / 2**30:.1f} GiB of memory that the {wanted} can give: use --cache=auto"
        )
    return wanted


class Dispatch(NamedTuple):
    """Steps that were sent to the devices.

    Attributes:
      num_steps: how many they are.
      metrics: of the steps, see `TrainStep`; with a leading axis of steps if `stacked`.
      outputs: likewise.
      stacked: whether several steps were sent at once; there may be more places than steps.
    """

    num_steps: int
    metrics: dict[str, jax.Array]
    outputs: Any
    stacked: bool


class Feed(Protocol):
    """Takes steps on the training records."""

    def __call__(self, state: Any, step: int, most: int) -> tuple[Any, Dispatch]:
        """Send off at least one step, and at most `most`, from the state after `step` steps; give the next state."""
        ...


def batch_feed(train_step: Callable, batches: Iterator[Batch]) -> Feed:
    """Feed batches of the host, sent to the devices ahead of the step that takes them.

    Args:
      train_step: mapped, see `parallel.pmap_train_step`.
      batches: this process's shares, a step each.
    """
    sent = sent_ahead(batches)

    def feed(state: Any, step: int, most: int) -> tuple[Any, Dispatch]:
        state, metrics, outputs = train_step(state, next(sent))
        return state, Dispatch(1, metrics, outputs, stacked=False)

    return feed


def gathered(examples: Batch, order: BatchOrder, share: slice, steps: Iterable[int]) -> Iterator[Batch]:
    """Gather batches from all examples.

    Args:
      examples: all of them, on the host.
      order: which of them each step takes.
      share: this process's rows of each global batch.
      steps: that will be taken.
    """
    for step in steps:
        places = order.rows(step)[share]
        yield jax.tree.map(lambda values, places=places: values[places], examples)


def streamed(training: TrainingRecords, share: slice, steps: Sequence[int]) -> Iterator[Batch]:
    """Read the records of each batch a little before its step; otherwise as `gathered`."""
    places = np.stack([training.order.rows(step)[share] for step in steps])
    fields = stream_fields(training.records, training.rows[places.ravel()], training.fields, places.shape[1])
    for of_step, values in zip(places, fields, strict=True):
        yield training.batch(values, of_step)


def sent_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make batches, and send them to the devices, in a thread: a few before they are asked for."""
    sent = map(devices.send_to_replicas, batches)
    with ThreadPoolExecutor(1) as thread:
        pending = collections.deque(thread.submit(next, sent, None) for _ in range(BATCHES_AHEAD))
        while (batch := pending.popleft().result()) is not None:
            pending.append(thread.submit(next, sent, None))
            yield batch


def device_feed(train_steps: Callable, examples: Batch, order: BatchOrder, share: slice) -> Feed:
    """Feed indices alone: the examples are on every device, batches are gathered there, several steps a dispatch.

    Args:
      train_steps: mapped, see `parallel.pmap_train_steps`.
      examples: all of them, on the host.
      order: which of them each step takes.
      share: this process's rows of each global batch.
    """
    cache = devices.replicate(examples)
    most_steps = STEPS_PER_DISPATCH_ON_CPU if jax.default_backend() == "cpu" else STEPS_PER_DISPATCH

    def feed(state: Any, step: int, most: int) -> tuple[Any, Dispatch]:
        num_steps = min(most, most_steps)
        places = np.zeros((most_steps, share.stop - share.start), np.int32)
        for place in range(num_steps):
            places[place] = order.rows(step + place)[share]
        state, metrics, outputs = train_steps(state, cache, devices.columns_to_replicas(places), np.int32(num_steps))
        return state, Dispatch(num_steps, metrics, outputs, stacked=True)

    return feed
