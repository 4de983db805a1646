"""From studies to answers: one compiled network, fed by processes that read and prepare the next studies."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from tfds_mosmed.reading import Reading, prepare_scan

from covidscan.model_info import ModelInfo
from covidscan.prediction import Prediction
from tfds_mosmed.ct_volume import scan_of_array
from tfds_mosmed.preprocess import Grid
from tfds_mosmed.scans import read_scan

BATCH_SIZE = 4  # studies that are answered at once: larger ones keep the first answers waiting


class Model(Protocol):
    """What gives probabilities: `ensemble.Ensemble`, `exported.Exported`."""

    @property
    def info(self) -> ModelInfo:
        """What it was made for."""
        ...

    def probabilities(self, volumes: Any) -> jax.Array:
        """Give (batch, label) for HU (batch, slice, row, column) on the grid."""
        ...


class Predictor:
    """A model that is compiled once and answers for many studies.

    Attributes:
      model: who answers.
      info: what it was made for.
      grid: what studies are brought to.
    """

    def __init__(self, model: Model, *, tta: bool = False):
        """See `covidscan.load`."""
        self.model = model
        self.info = model.info
        self.grid = Grid.parse(model.info.grid)
        self._probabilities = _compiled(model, tta)

    def __call__(self, study: str | Path | np.ndarray, spacing_mm: Sequence[float] | None = None) -> Prediction:
        """Answer for one study.

        Args:
          study: a NIfTI file, a folder with a DICOM series, a multi-frame DICOM file; or an array of HU (slice, row,
            column): slices from feet to head, rows from front to back, columns from the patient's right to left.
          spacing_mm: of an array, mm between voxel centres along the same axes.

        Raises:
          ScanError: the study cannot be used; the message names it and the way out.
          TypeError: an array without spacing, or a path with one.
        """
        start = time.perf_counter()
        if isinstance(study, np.ndarray):
            if spacing_mm is None:
                raise TypeError("an array needs `spacing_mm`: mm along (slice, row, column)")
            name, scan = "array", scan_of_array(study, spacing_mm)
        elif spacing_mm is not None:
            raise TypeError("`spacing_mm` is for arrays: a file knows its own")
        else:
            name, scan = str(study), read_scan(study)
        reading = prepare_scan(scan, self.grid, start)
        return self.answer([name], [reading])[0]

    def answer(self, names: Sequence[str], readings: Sequence[Reading]) -> list[Prediction]:
        """Answer for studies that have been read, all at once."""
        start = time.perf_counter()
        volumes = np.stack([reading.prepared.volume for reading in readings])
        probability = np.asarray(self._probabilities(volumes), np.float64)
        seconds = (time.perf_counter() - start) / len(names)
        return [
            _prediction(self.info, name, reading, row, seconds)
            for name, reading, row in zip(names, readings, probability, strict=True)
        ]

    def stream(self, readings: Iterable[tuple[str, Reading | str]]) -> Iterator[tuple[Prediction, Reading | None]]:
        """Answer for studies as they come, `BATCH_SIZE` at a time.

        Args:
          readings: name and study, or name and the reason why it could not be read.

        Yields:
          For each, in order, what the model says, or its error; and the study.
        """
        for group in itertools.batched(readings, BATCH_SIZE):
            read = [(name, reading) for name, reading in group if not isinstance(reading, str)]
            answers = iter(self.answer(*map(list, zip(*read, strict=True))) if read else ())
            for name, reading in group:
                if isinstance(reading, str):
                    yield _failed(name, reading), None
                else:
                    yield next(answers), reading


def _compiled(model: Model, tta: bool) -> Callable[[np.ndarray], jax.Array]:
    """Compile a model for batches of one and of `BATCH_SIZE`; smaller ones are padded."""

    def probabilities(volumes: jax.Array) -> jax.Array:
        if not tta:
            return model.probabilities(volumes)
        return (model.probabilities(volumes) + model.probabilities(volumes[..., ::-1])) / 2

    compiled = jax.jit(probabilities)

    def call(volumes: np.ndarray) -> jax.Array:
        size = len(volumes)
        padding = 0 if size == 1 else BATCH_SIZE - size
        return compiled(np.pad(volumes, [(0, padding), *[(0, 0)] * 3], mode="edge"))[:size]

    return call
