"""Records -> host batches. The order is a pure function of (seed, step): nothing about it needs to be saved."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from covidscan.steps import Batch

CACHE_SHARE_OF_MEMORY = 0.25


def epoch_order(seed: int, epoch: int, labels: np.ndarray, balance: bool) -> np.ndarray:
    """Order the rows of an epoch.

    Args:
      seed: the run's seed.
      epoch: number of the epoch.
      labels: (row,) of the training studies.
      balance: whether each label is drawn equally often; rare studies then come several times, frequent ones not
        every epoch.

    Returns:
      (row,) indices into `labels`, as many as there are rows.
    """
    generator = np.random.default_rng([seed, epoch])
    rows = len(labels)
    if not balance:
        return generator.permutation(rows)
    present = np.unique(labels)
    quotas = np.full(len(present), rows // len(present))
    quotas[generator.permutation(len(present))[: rows % len(present)]] += 1
    drawn = []
    for label, quota in zip(present, quotas, strict=True):
        of_label = np.flatnonzero(labels == label)
        passes = [generator.permutation(of_label) for _ in range(-(-quota // len(of_label)))]
        drawn.append(np.concatenate(passes)[:quota])
    return generator.permutation(np.concatenate(drawn))


class _Places(Sequence):
    """The rows at the places 0, 1, 2 … of the endless stream of examples that a run sees."""

    def __init__(self, seed: int, labels: np.ndarray, balance: bool, length: int):
        self._order = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(seed, epoch, labels, balance))
        self._rows = len(labels)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> int:
        epoch, within = divmod(place, self._rows)
        return int(self._order(epoch)[within])


def record_reader(
    records: Sequence[dict[str, Any]], rows: np.ndarray, fields: Sequence[str]
) -> Callable[[int], dict[str, np.ndarray]]:
    """Give a function from a row of the records to some of its fields.

    The fields of `rows` are read into arrays at once, unless they would fill a quarter of the memory.
    """

    def read(row: int) -> dict[str, np.ndarray]:
        record = records[int(row)]
        return {field: np.asarray(record[field]) for field in fields}

    first = read(rows[0])
    size = len(rows) * sum(value.nbytes for value in first.values())
    if size > CACHE_SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return read
    cache = {field: np.empty((len(rows), *value.shape), value.dtype) for field, value in first.items()}
    for place, record in enumerate(grain.MapDataset.source(rows.tolist()).map(read).to_iter_dataset(_read_options())):
        for field, value in record.items():
            cache[field][place] = value
    place_of = {int(row): place for place, row in enumerate(rows)}
    return lambda row: {field: values[place_of[int(row)]] for field, values in cache.items()}


def _read_options() -> grain.ReadOptions:
    threads = os.cpu_count() or 1
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)


def loss_weights(labels: np.ndarray, balance: bool) -> np.ndarray:
    """Weigh each row by its label's inverse frequency, 1 in the mean; 1 throughout without `balance`."""
    if not balance:
        return np.ones(len(labels), np.float32)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(counts) * counts[inverse])).astype(np.float32)


def batch_rows(labels: np.ndarray, *, seed: int, class_balance: str, batch_size: int, step: int) -> list[int]:
    """Give the indices into `labels` of the global batch that a step takes; see `train_batches`."""
    places = _Places(seed, labels, class_balance == "sampling", (step + 1) * batch_size)
    return [places[place] for place in range(step * batch_size, (step + 1) * batch_size)]


def train_batches(
    read: Callable[[int], dict[str, np.ndarray]],
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    class_balance: str,
    batch_size: int,
    share: slice,
    steps: range,
) -> Iterator[Batch]:
    """Read this process's share of the global batches of `steps`.

    Args:
      read: gives a record's fields: "volume" (slice, row, column) int16, HU, and where lesions are learned from
        "lesion_mask" of that shape, uint8, and "has_lesion_mask".
      rows: the records that train.
      labels: (row,) of these.
      seed: seed of the order.
      class_balance: "sampling", "loss" or "none".
      batch_size: of the global batch.
      share: this process's rows of each global batch.
      steps: the steps to read for; a resumed run begins where it stopped.

    Yields:
      For each step the share of the batch.
    """
    places = _Places(seed, labels, class_balance == "sampling", steps.stop * batch_size)
    weights = loss_weights(labels, class_balance == "loss")
    local = share.stop - share.start

    def load(place: int) -> dict[str, Any]:
        step, within = divmod(int(place), local)
        row = places[(steps.start + step) * batch_size + share.start + within]
        return {**read(rows[row]), "label": labels[row], "weight": weights[row]}

    examples = grain.MapDataset.range(len(steps) * local).map(load).to_iter_dataset(_read_options())
    for batch in examples.batch(local):
        yield Batch(**batch)


def eval_batches(
    read: Callable[[int], dict[str, np.ndarray]], rows: np.ndarray, batch_size: int, share: slice
) -> Iterator[np.ndarray]:
    """Read this process's share of every study in order, in global batches of which the last is padded.

    Yields:
      For each global batch the share's volumes (row, slice, row, column) int16; the last study again pads.
    """
    num_batches = -(-len(rows) // batch_size)
    places = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share].ravel().tolist()

    def load(place: int) -> np.ndarray:
        return read(rows[min(place, len(rows) - 1)])["volume"]

    yield from (
        grain.MapDataset.source(places).map(load).to_iter_dataset(_read_options()).batch(share.stop - share.start)
    )
