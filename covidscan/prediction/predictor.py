"""From studies to answers: a compiled model, and what it says of each study that was read."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from covidscan.data import domain_shift
from covidscan.data.domain_shift import Flag, ReferenceRanges
from covidscan.metrics import thresholds
from covidscan.prediction.prediction import Prediction
from covidscan.prediction.reading import Reading, Refusal, prepare_scan
from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import scan_of_array

if TYPE_CHECKING:
    from covidscan.explanation.saliency import Maps, SaliencyMapper

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
        explainer: "SaliencyMapper | None" = None,
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
        self._typical = None if info.typical is None else ReferenceRanges.from_json(info.typical)
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
        elif isinstance(study, str | Path):
            name, scan = str(study), read_scan(study)
        else:
            raise TypeError(f"`study` is a {type(study).__name__}: give a path or a NumPy array of HU")
        return self.answer(prepare_scan(name, scan, self.grid, start))

    def answer(self, reading: Reading | Refusal) -> Prediction:
        """Answer for a study that has been read, or say why it could not be.

        Raises:
          UserError: the network's probabilities are not numbers.
        """
        if isinstance(reading, Refusal):
            return _refused(reading)
        start = time.perf_counter()
        probability = self._probabilities(reading.prepared.volume)
        if not np.isfinite(probability).all():
            raise UserError(
                "the network's probabilities are not numbers, its training diverged: use --checkpoint=best, or train "
                "with a lower --learning_rate"
            )
        return self._prediction(reading, probability, time.perf_counter() - start)

    def _probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Give (label,), float64. One study at a time: larger batches are no faster than studies are read."""
        views = [volume, volume[..., ::-1]] if self._tta else [volume]
        return np.mean([np.asarray(self._compiled(view[None]), np.float64)[0] for view in views], axis=0)

    def _prediction(self, reading: Reading, probability: np.ndarray, seconds: float) -> Prediction:
        info = self.info
        decided = int(thresholds.decide(info.task, probability[None], info.threshold)[0])
        if info.task == "classes":
            disease = probability[decided]
        else:
            _, disease = thresholds.dichotomies(info.task, np.zeros(1), probability[None])[0]
        look = reading.appearance
        answer = Prediction(
            path=reading.name,
            probability=round(float(np.squeeze(disease)), DIGITS),
            decision=info.label_names[decided],
            probabilities={name: float(p) for name, p in zip(info.label_names, probability, strict=True)},
            flags=tuple(domain_shift.flags(look, self._typical, reading.prepared.oddities)),
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
        cam = self.explainer.grad_cam(reading.prepared.volume, self._explained_class(answer))
        return overlay_png(reading.prepared, cam)

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
        return self.explainer(reading.prepared.volume, self._explained_class(answer))

    def explained(self, answer: Prediction) -> str:
        """Name what `Prediction.probability` is of, and maps explain: a label, or more than the first grade."""
        names = self.info.label_names
        return {"binary": names[1], "severity": f"above {names[0]}"}.get(self.info.task, answer.decision or "")

    def _explained_class(self, answer: Prediction) -> int | None:
        """Give the class that maps explain; None where they explain disease."""
        if self.info.task != "classes" or answer.decision is None:
            return None
        return self.info.label_names.index(answer.decision)


def flags_of_refusal(refusal: Refusal) -> list[Flag]:
    """Return the flags of a study that could not be read."""
    return [] if refusal.is_hounsfield else [Flag("not_hu", "values that are not HU, see the error")]


def _refused(refusal: Refusal) -> Prediction:
    return Prediction(
        path=refusal.name,
        probability=None,
        decision=None,
        probabilities={},
        flags=tuple(flags_of_refusal(refusal)),
        seen={},
        warnings=(),
        seconds=refusal.seconds,
        error=refusal.reason,
    )
