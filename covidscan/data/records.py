"""Reading of records into host arrays, by Grain's threads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from covidscan.distributed import watchdog
from tfds_mosmed.cores import usable_cores


def _in_threads(rows: np.ndarray, read: Callable[[int], Any]) -> Any:
    """Read rows in order, some ahead, in Grain's threads."""
    import grain  # imported lazily: the benchmark runs without it

    threads = usable_cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return grain.MapDataset.source(rows.tolist()).map(read).to_iter_dataset(options)


def _reader(records: Sequence[dict[str, Any]], fields: Sequence[str]) -> Callable[[int], dict[str, np.ndarray]]:
    def read(row: int) -> dict[str, np.ndarray]:
        record = records[row]
        return {field: np.asarray(record[field]) for field in fields}

    return read


def read_fields(records: Sequence[dict[str, Any]], rows: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Read fields of rows into one array (row, …) per field."""
    arrays: dict[str, np.ndarray] = {}
    for i, record in enumerate(_in_threads(rows, _reader(records, fields))):
        watchdog.current().went_on()
        for field, value in record.items():
            array = arrays.setdefault(field, np.empty((len(rows), *value.shape), value.dtype))
            array[i] = value
    return arrays


def stream_fields(
    records: Sequence[dict[str, Any]], rows: np.ndarray, fields: Sequence[str], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Read fields of rows as they are needed.

    Yields:
      The fields of the next `batch_size` rows, (row, …) each.
    """
    yield from _in_threads(rows, _reader(records, fields)).batch(batch_size)


def eval_batches(
    volume_of: Callable[[int], np.ndarray], rows: np.ndarray, batch_size: int, share: slice
) -> Iterator[np.ndarray]:
    """Read this process's share of all studies in order, in global batches; repeats of the last study pad the last one.

    Yields:
      The share's volumes of each global batch (row, slice, row, column), int16.
    """
    num_batches = -(-len(rows) // batch_size)
    indices = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share].ravel()
    yield from _in_threads(rows[np.minimum(indices, len(rows) - 1)], volume_of).batch(share.stop - share.start)
