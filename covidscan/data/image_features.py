"""What can be told of a study without a network: how it was scanned, how dense its lungs are, what lies around them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.workers import usable_cores

T = TypeVar("T")
DENSE_ABOVE_HU = -700
CELLS = 8  # along rows and along columns, that what lies outside of the lungs is pooled to


class StudyFeatures(NamedTuple):
    """Features of a study; of several studies with an axis of studies before the others. NaN is what is not defined.

    Attributes:
      acquisition: (4,), slices of the source, and its spacing in mm along (slice, row, column).
      mean_lung_hu: (), of the lungs with vessels and small consolidations.
      dense_share: (), of the lungs' voxels, those above -700 HU.
      outside: (3 * cell,), lowest, highest and mean HU of what lies outside of the thorax, in each cell of a coarse
        grid over rows and columns. Slices are pooled: the lungs' box ends where aerated lung does, so the place of a
        record's slices goes with the disease. A cell within the thorax, or a volume without lungs, has none.
    """

    acquisition: np.ndarray
    mean_lung_hu: np.ndarray
    dense_share: np.ndarray
    outside: np.ndarray


def study_features(record: Mapping[str, Any]) -> StudyFeatures:
    """Compute the features of a study.

    Args:
      record: the fields "volume" (int16 HU, (slice, row, column)), "spacing_mm", "source_shape" and
        "source_spacing_mm", all along (slice, row, column).
    """
    volume = record["volume"]
    region = lung_region(volume, record["spacing_mm"])
    outside = np.zeros(volume.shape[1:], bool) if region is None else ~region.thorax
    lungs = volume[:0].ravel() if region is None else volume[region.lungs]
    return StudyFeatures(
        acquisition=np.array([record["source_shape"][0], *record["source_spacing_mm"]], np.float64),
        mean_lung_hu=np.asarray(lungs.mean() if lungs.size else np.nan),
        dense_share=np.asarray((lungs > DENSE_ABOVE_HU).mean() if lungs.size else np.nan),
        outside=_pooled(volume, outside),
    )


def features_of(records: Sequence[Mapping[str, Any]], rows: Sequence[int] | np.ndarray) -> StudyFeatures:
    """Compute the features of several studies, on all cores.

    Args:
      records: random access to records, from several threads; see `study_features`.
      rows: which of them.

    Returns:
      The features, row i of `rows` at place i of the axis of studies.
    """
    found = on_all_cores(study_features, records, rows)
    return StudyFeatures(*(np.stack(column) for column in zip(*found, strict=True)))


def on_all_cores(
    function: Callable[[Mapping[str, Any]], T], records: Sequence[Mapping[str, Any]], rows: Sequence[int] | np.ndarray
) -> list[T]:
    """Apply a function to records, read from several threads; what it gives of row i of `rows` is at place i."""
    with threadpool_limits(1), ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(lambda row: function(records[int(row)]), rows))


def _pooled(volume: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Lowest, highest and mean HU of each cell's wanted (row, column) through all slices, float32 (3 * cell,)."""
    rows, columns = (np.arange(min(size, CELLS)) * size // min(size, CELLS) for size in wanted.shape)

    def reduced(image: np.ndarray, operation: np.ufunc) -> np.ndarray:
        return operation.reduceat(operation.reduceat(image, rows, axis=0), columns, axis=1)

    pixels = reduced(wanted.astype(np.int64), np.add)
    pooled = [
        reduced(np.where(wanted, volume.min(axis=0), np.iinfo(np.int16).max), np.minimum),
        reduced(np.where(wanted, volume.max(axis=0), np.iinfo(np.int16).min), np.maximum),
        reduced(np.where(wanted, volume.sum(axis=0, dtype=np.int64), 0), np.add) / np.maximum(pixels * len(volume), 1),
    ]
    return np.where(pixels > 0, pooled, np.nan).astype(np.float32).ravel()
