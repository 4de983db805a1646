"""Features of a study without a network: acquisition, density of the lungs, voxels outside of the thorax."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from covidscan.distributed import watchdog
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.progress import progress

T = TypeVar("T")
DENSE_ABOVE_HU = -700
CELLS = 8  # of the coarse grid along rows and along columns, to which voxels outside of the thorax are pooled


class StudyFeatures(NamedTuple):
    """Features of a study; of several studies, with a leading axis of studies. NaN where not defined.

    Attributes:
      acquisition: (4,), number of slices of the source, and its spacing in mm along (slice, row, column).
      mean_lung_hu: (), HU, of the lungs including vessels and small consolidations.
      dense_share: (), share of the lungs' voxels above -700 HU.
      outside: (3 * cell,), minimum, maximum and mean HU of the voxels outside of the thorax, in each cell of a coarse
        grid over rows and columns. Slices are pooled: the lungs' box ends where aerated lung does, so the position of a
        record's slices depends on the disease. Not defined in a cell within the thorax or without lungs.
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
        outside=_pool(volume, outside),
    )


def features_of(records: Sequence[Mapping[str, Any]], rows: Sequence[int] | np.ndarray, title: str) -> StudyFeatures:
    """Compute the features of several studies, on all cores.

    Args:
      records: random access to records, from several threads; see `study_features`.
      rows: indices of the records.
      title: of the progress that is shown.

    Returns:
      The features, in the order of `rows` along the axis of studies.
    """
    features = map_on_all_cores(study_features, records, rows, title)
    return StudyFeatures(*(np.stack(column) for column in zip(*features, strict=True)))


def map_on_all_cores(
    function: Callable[[Mapping[str, Any]], T],
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[int] | np.ndarray,
    title: str,
) -> list[T]:
    """Apply a function to records, read from several threads; results are in the order of `rows`."""
    with threadpool_limits(1), ThreadPoolExecutor(usable_cores()) as pool:
        results = []
        for result in progress(pool.map(lambda row: function(records[int(row)]), rows), len(rows), title):
            watchdog.current().went_on()
            results.append(result)
        return results


def _pool(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return minimum, maximum and mean HU of each cell's masked (row, column) over all slices: (3 * cell,), float32."""
    rows, columns = (np.arange(min(size, CELLS)) * size // min(size, CELLS) for size in mask.shape)

    def reduce(image: np.ndarray, operation: np.ufunc) -> np.ndarray:
        return operation.reduceat(operation.reduceat(image, rows, axis=0), columns, axis=1)

    pixels = reduce(mask.astype(np.int64), np.add)
    pooled = [
        reduce(np.where(mask, volume.min(axis=0), np.iinfo(np.int16).max), np.minimum),
        reduce(np.where(mask, volume.max(axis=0), np.iinfo(np.int16).min), np.maximum),
        reduce(np.where(mask, volume.sum(axis=0, dtype=np.int64), 0), np.add) / np.maximum(pixels * len(volume), 1),
    ]
    return np.where(pixels > 0, pooled, np.nan).astype(np.float32).ravel()
