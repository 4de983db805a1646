"""Records -> host arrays. The order is a pure function of (seed, step): nothing about it needs to be saved."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


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


class BatchOrder:
    """Which training rows each step's global batch holds.

    Args:
      labels: (row,) of the training studies.
      seed: the run's seed.
      class_balance: "sampling" draws each label equally often.
      batch_size: of the global batch.
    """

    def __init__(self, labels: np.ndarray, *, seed: int, class_balance: str, batch_size: int):
        balance = class_balance == "sampling"
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(seed, epoch, labels, balance))
        self._rows = len(labels)
        self.batch_size = batch_size

    def rows(self, step: int) -> np.ndarray:
        """Give (batch,) indices into `labels`: places 0, 1, 2 … of all epochs, one after the other."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._epoch(place // self._rows)[place % self._rows] for place in places.tolist()])


def loss_weights(labels: np.ndarray, balance: bool) -> np.ndarray:
    """Weigh each row by its label's inverse frequency, 1 in the mean; 1 throughout without `balance`."""
    if not balance:
        return np.ones(len(labels), np.float32)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(counts) * counts[inverse])).astype(np.float32)


def _in_threads(rows: np.ndarray, read: Callable[[int], Any]) -> Any:
    """Read rows in order, some ahead, in Grain's threads."""
    import grain  # networks are benchmarked where it is not installed

    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return grain.MapDataset.source(rows.tolist()).map(read).to_iter_dataset(options)


def _reader(records: Sequence[dict[str, Any]], fields: Sequence[str]) -> Callable[[int], dict[str, np.ndarray]]:
    def read(row: int) -> dict[str, np.ndarray]:
        record = records[row]
        return {field: np.asarray(record[field]) for field in fields}

    return read


def read_fields(records: Sequence[dict[str, Any]], rows: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some fields of some rows into one array each, (row, …)."""
    arrays: dict[str, np.ndarray] = {}
    for place, record in enumerate(_in_threads(rows, _reader(records, fields))):
        for field, value in record.items():
            array = arrays.setdefault(field, np.empty((len(rows), *value.shape), value.dtype))
            array[place] = value
    return arrays


def stream_fields(
    records: Sequence[dict[str, Any]], rows: np.ndarray, fields: Sequence[str], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Read some fields of rows as they are needed.

    Yields:
      For each `batch_size` rows the fields, (row, …).
    """
    yield from _in_threads(rows, _reader(records, fields)).batch(batch_size)


def eval_batches(
    volume_of: Callable[[int], np.ndarray], rows: np.ndarray, batch_size: int, share: slice
) -> Iterator[np.ndarray]:
    """Read this process's share of every study in order, in global batches of which the last is padded.

    Yields:
      For each global batch the share's volumes (row, slice, row, column) int16; the last study again pads.
    """
    num_batches = -(-len(rows) // batch_size)
    places = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share].ravel()
    yield from _in_threads(rows[np.minimum(places, len(rows) - 1)], volume_of).batch(share.stop - share.start)
