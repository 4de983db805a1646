"""From studies to answers: a compiled model, and what it says of each study that was read."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from covidscan import decisions, guard_rails
from covidscan.guard_rails import Typical
from covidscan.model_info import ModelInfo
from covidscan.prediction import Prediction
from tfds_mosmed.ct_volume import scan_of_array
from tfds_mosmed.preprocess import Grid
from tfds_mosmed.reading import Reading, Refusal, prepare_scan
from tfds_mosmed.scans import read_scan

if TYPE_CHECKING:
    from covidscan.explain import Explainer, Maps

BATCH_SIZE = 4  # studies that are answered at once: larger ones keep the first answers waiting
DIGITS = 12  # of sums of float32, so that 1 - P(first grade) does not end in …0002


class Predictor:
    """A model that is compiled once and answers for many studies. `covidscan.load` makes it.

    Attributes:
      info: what the model was made for.
      grid: what studies are brought to.
      explainer: draws maps of what speaks for an answer; None where the model was exported.
    """

    def __init__(
        self,
        info: ModelInfo,
        probabilities: Callable[[np.ndarray], Any],
        *,
        tta: bool = False,
        explainer: "Explainer | None" = None,
    ):
        """Take a model.

        Args:
          info: what it was made for.
          probabilities: compiled: (batch, label) of int16 HU (batch, slice, row, column) on the grid.
          tta: whether the answer is the mean over the study and its mirror image.
          explainer: draws maps of what speaks for an answer; None where the networks themselves are not there.
        """
        self.info = info
        self.grid = Grid.parse(info.grid)
        self._typical = None if info.typical is None else Typical.from_json(info.typical)
        self._compiled = probabilities
        self._tta = tta
        self.explainer = explainer

    def __call__(self, study: str | Path | np.ndarray, spacing_mm: Sequence[float] | None = None) -> Prediction:
        """Answer for one study, in this process.

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
        return self.answer([prepare_scan(name, scan, self.grid, start)])[0]

    def answer(self, readings: Sequence[Reading]) -> list[Prediction]:
        """Answer for studies that have been read, `BATCH_SIZE` at most, all at once."""
        start = time.perf_counter()
        volumes = np.stack([reading.prepared.volume for reading in readings])
        probability = self._probabilities(volumes)
        seconds = (time.perf_counter() - start) / len(readings)
        return [self._prediction(*pair, seconds) for pair in zip(readings, probability, strict=True)]

    def stream(self, readings: Iterable[Reading | Refusal]) -> Iterator[tuple[Prediction, Reading | None]]:
        """Answer for studies as they come, `BATCH_SIZE` at a time.

        Args:
          readings: studies, or why they could not be read.

        Yields:
          For each, in order, what the model says, or its error; and the study.
        """
        remaining = iter(readings)
        while group := list(itertools.islice(remaining, BATCH_SIZE)):
            read = [reading for reading in group if isinstance(reading, Reading)]
            answers = iter(self.answer(read) if read else ())
            for reading in group:
                if isinstance(reading, Refusal):
                    yield _refused(reading), None
                else:
                    yield next(answers), reading

    def _probabilities(self, volumes: np.ndarray) -> np.ndarray:
        """Give (batch, label), float64; batches are of one or of `BATCH_SIZE`, so that two programs are compiled."""
        size = len(volumes)
        if 1 < size < BATCH_SIZE:
            volumes = np.pad(volumes, [(0, BATCH_SIZE - size), (0, 0), (0, 0), (0, 0)], mode="edge")
        said = np.asarray(self._compiled(volumes), np.float64)
        if self._tta:
            said = (said + np.asarray(self._compiled(volumes[..., ::-1]), np.float64)) / 2
        return said[:size]

    def _prediction(self, reading: Reading, probability: np.ndarray, seconds: float) -> Prediction:
        info = self.info
        decided = int(decisions.decide(info.task, probability[None], info.threshold)[0])
        if info.task == "classes":
            disease = probability[decided]
        else:
            _, disease = decisions.dichotomies(info.task, np.zeros(1), probability[None])[0]
        look = reading.appearance
        answer = Prediction(
            path=reading.name,
            probability=round(float(np.squeeze(disease)), DIGITS),
            decision=info.label_names[decided],
            probabilities={name: float(p) for name, p in zip(info.label_names, probability, strict=True)},
            flags=tuple(guard_rails.flags(look, self._typical, reading.prepared.oddities)),
            seen={name: value for name, value in look._asdict().items() if math.isfinite(value)},
            warnings=reading.prepared.warnings,
            seconds=reading.seconds + seconds,
        )
        if self.explainer is None:
            return answer
        return dataclasses.replace(answer, picture=functools.partial(self._picture, reading, answer))

    def _picture(self, reading: Reading, answer: Prediction) -> bytes:
        """Draw the most telling slice with what speaks for the disease, or for the class decided for."""
        from covidscan.explanation import overlay_png  # and with it Matplotlib

        assert self.explainer is not None
        return overlay_png(reading.prepared, self.explainer.grad_cam(reading.prepared.volume, self._explained(answer)))

    def explain(self, reading: Reading, answer: Prediction) -> "Maps":
        """Draw maps of what speaks for the disease, or, where labels are classes, for the one decided for.

        Args:
          reading: the study.
          answer: what was said of it.

        Raises:
          ValueError: the model was exported, and cannot be explained.
        """
        if self.explainer is None:
            raise ValueError("an exported model cannot be explained: load the workdir it was exported from.")
        return self.explainer(reading.prepared.volume, self._explained(answer))

    def _explained(self, answer: Prediction) -> int | None:
        """Give the class that maps explain; None where they explain disease."""
        if self.info.task != "classes" or answer.decision is None:
            return None
        return self.info.label_names.index(answer.decision)


def _refused(refusal: Refusal) -> Prediction:
    return Prediction(
        path=refusal.name,
        probability=None,
        decision=None,
        probabilities={},
        flags=tuple(guard_rails.flags_of_refusal(refusal)),
        seen={},
        warnings=(),
        seconds=refusal.seconds,
        error=refusal.reason,
    )
