"""A compiled model that predicts one study after another."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from covidscan.data import domain_shift
from covidscan.data.domain_shift import Flag, ReferenceRanges
from covidscan.metrics import prevalence as prevalences
from covidscan.metrics import thresholds
from covidscan.metrics.predictions import join_names
from covidscan.prediction.prediction import Prediction
from covidscan.prediction.reading import Reading, Refusal, prepare_scan
from covidscan.trained_models.model_info import Answer, ModelInfo
from tfds_mosmed.ct_table.cells import SEVERAL
from tfds_mosmed.errors import UserError, one_line
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import Scan, scan_of_array

if TYPE_CHECKING:
    from covidscan.trained_models.embedder import Embedder  # imports JAX, which is slow

HEX_DIGITS = 12
NOT_FINITE = (
    "the network's predictions are not finite, because its training diverged: use --checkpoint=best, or train with a "
    "lower --learning_rate"
)
DIGITS = 12  # of sums of float32, so that 1 - P(first grade) does not end in …0002


class Explainer(Protocol):
    """Interface of `covidscan.explanation.explainer.Explainer`, which the caller passes in."""

    def picture(self, prepared: Prepared, label: int | None) -> bytes:
        """Draw one slice with the saliency map of a label, as PNG."""
        ...

    def write(
        self, folder: Path, name: str, scan: Scan, prepared: Prepared, label: int | None, answer: Answer
    ) -> tuple[list[str], list[str]]:
        """Write the files that explain a label; return their names, and what could not be written."""
        ...


class Predictor:
    """A model that is compiled once and predicts many studies. `covidscan.load` creates it.

    Args:
      info: what the model needs besides its weights.
      probabilities: compiled: (batch, label), of regression values (batch, 1), of int16 HU (batch, slice, row, column)
        on the grid.
      explainer: draws saliency maps; None for an exported model, and where nothing will be explained.
      embedder: computes features; None where they are not asked for.
      sha256: of the networks; "" where not known.
      prevalence: to which probabilities, and the threshold, are adapted; None: to none.

    Raises:
      UserError: the model cannot be adapted to a prevalence.

    Attributes:
      info: the same.
      identity: see `Prediction.model`.
      grid: grid of the prepared studies.
      embedder: the same.
    """

    def __init__(
        self,
        info: ModelInfo,
        probabilities: Callable[[np.ndarray], Any],
        *,
        explainer: Explainer | None = None,
        embedder: "Embedder | None" = None,
        sha256: str = "",
        prevalence: float | None = None,
    ):
        prevalences.check(info.task, info.prevalence, prevalence, "the model")
        self._calibrated_to, self._prevalence = info.prevalence, prevalence
        if prevalence is not None:
            info = _adapted(info, prevalence)
        self.info = info
        self.identity = (
            sha256[:HEX_DIGITS]
            + (f"+tta={info.tta}" if info.tta else "")
            + (f"+prevalence={prevalence:g}" if prevalence else "")
        )
        self.grid = Grid.parse(info.grid)
        self._typical = None if info.typical is None else ReferenceRanges.from_json(info.typical)
        self._compiled = probabilities
        self._explainer = explainer
        self.embedder = embedder

    def __call__(self, study: str | Path | np.ndarray, spacing_mm: Sequence[float] | None = None) -> Prediction:
        """Predict one study, in this process.

        Args:
          study: a NIfTI file, a folder with a DICOM series or a multi-frame DICOM file; or an array of HU (slice, row,
            column): slices from feet to head, rows from front to back, columns from the patient's right to left.
          spacing_mm: of an array: mm between voxel centres along the same axes.

        Raises:
          ScanError: the study cannot be used; the message names it and the remedy.
          TypeError: an array without spacing, or a path with one.
        """
        start = time.perf_counter()
        if isinstance(study, np.ndarray):
            if spacing_mm is None:
                raise TypeError("an array needs `spacing_mm`: mm along (slice, row, column)")
            name, scan = "array", scan_of_array(study, spacing_mm)
        elif spacing_mm is not None:
            raise TypeError("`spacing_mm` is for arrays only: the spacing of a file is read from its header")
        elif isinstance(study, str | Path):
            name, scan = str(study), read_scan(study, choose_series=first_with_lungs)
        else:
            raise TypeError(f"`study` is a {type(study).__name__}: give a path or a NumPy array of HU")
        return self.predict(prepare_scan(name, scan, self.grid, start))

    def predict(self, reading: Reading | Refusal) -> Prediction:
        """Predict a study that has been read; a refused one becomes a prediction with an error.

        Raises:
          UserError: the network's predictions are not finite.
        """
        if isinstance(reading, Refusal):
            return dataclasses.replace(_refused(reading), threshold=self.info.threshold, model=self.identity)
        start = time.perf_counter()
        probability = self._probabilities(reading.prepared.volume)
        if not np.isfinite(probability).all():
            raise UserError(NOT_FINITE)
        return self._prediction(reading, probability, time.perf_counter() - start)

    def _probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Compute (label,), float64. One study at a time: reading is the bottleneck, so larger batches gain nothing."""
        probability = np.asarray(self._compiled(volume[None]), np.float64)[0]
        if self._prevalence is None or self._calibrated_to is None:
            return probability
        return prevalences.shift(probability, self._calibrated_to, self._prevalence)

    def _prediction(self, reading: Reading, probability: np.ndarray, seconds: float) -> Prediction:
        info, statistics = self.info, reading.statistics
        common: dict[str, Any] = {
            "path": reading.name,
            "flags": tuple(domain_shift.flags(statistics, self._typical, reading.prepared.lung_findings)),
            "seen": {name: value for name, value in statistics._asdict().items() if math.isfinite(value)},
            "warnings": reading.prepared.warnings,
            "seconds": reading.seconds + seconds,
            "model": self.identity,
        }
        if info.task == "regression":
            return Prediction(probability=None, decision=None, probabilities={}, value=float(probability[0]), **common)
        (decided,) = thresholds.decide(
            info.task, probability[None], thresholds.frozen(info.threshold, info.grade_thresholds)
        )
        if info.task == "multilabel":
            disease, decision = None, join_names(info.label_names, decided)
        else:
            decision = info.label_names[decided]
            disease = probability[decided]
            if info.task != "classes":
                _, disease = thresholds.dichotomies(info.task, np.zeros(1), probability[None])[0]
            disease = round(float(np.squeeze(disease)), DIGITS)
        prediction = Prediction(
            probability=disease,
            decision=decision,
            probabilities={name: float(p) for name, p in zip(info.label_names, probability, strict=True)},
            threshold=info.threshold,
            grade_thresholds=info.grade_thresholds,
            prevalence=self._prevalence,
            **common,
        )
        if self._explainer is None:
            return prediction
        label = self._explained_label(prediction)
        return dataclasses.replace(
            prediction, picture=functools.partial(self._explainer.picture, reading.prepared, label)
        )

    def explain(self, reading: Reading, prediction: Prediction, folder: Path, name: str) -> Prediction:
        """Write the files that explain a prediction.

        Args:
          reading: the study, with its scan.
          prediction: of this study.
          folder: an existing folder.
          name: prefix of the files' names.

        Returns:
          The prediction with the names of these files, and warnings of what could not be written.

        Raises:
          ValueError: there is no explainer, or the scan was not kept.
          OSError: a file cannot be written.
        """
        if self._explainer is None or reading.scan is None:
            raise ValueError("an explanation needs a predictor with an explainer, and a reading with its scan.")
        names, label = self.info.label_names, self._explained_label(prediction)
        of = names[label] if label is not None else f"above {names[0]}" if self.info.task == "severity" else names[1]
        probability = prediction.probabilities[of] if prediction.probability is None else prediction.probability
        flags = f", flagged: {', '.join(flag.code for flag in prediction.flags)}" if prediction.flags else ""
        threshold = prediction.threshold
        if label is not None and prediction.grade_thresholds:
            threshold = prediction.grade_thresholds[label]
        at = "" if threshold is None else f" (threshold {threshold:.3f})"
        # Not its path, which may identify the patient.
        title = "Study" if prediction.number is None else f"Study {prediction.number}"
        caption = one_line(f"{title}: {prediction.decision}, P({of}) = {probability:.3f}{at}{flags}")
        answer = Answer(caption, prediction.probabilities, self.identity)
        files, problems = self._explainer.write(folder, name, reading.scan, reading.prepared, label, answer)
        return dataclasses.replace(prediction, files=tuple(files), warnings=(*prediction.warnings, *problems))

    def _explained_label(self, prediction: Prediction) -> int | None:
        """Return the index of the predicted class, or of the likeliest of the predicted labels; None of other tasks.

        Where no label is predicted it is the likeliest of all.
        """
        names = self.info.label_names
        if not thresholds.is_of_each_label(self.info.task) or prediction.decision is None:
            return None
        predicted = [name for name in names if name in prediction.decision.split(SEVERAL)] or names
        return names.index(max(predicted, key=lambda name: prediction.probabilities[name]))


def _adapted(info: ModelInfo, prevalence: float) -> ModelInfo:
    assert info.prevalence is not None
    prevalences.check_criteria([info.criterion], prevalence)
    threshold = prevalences.shift_threshold(info.criterion, info.threshold, info.prevalence, prevalence)
    described = info.described + prevalences.describe(info.criterion, info.prevalence, prevalence)
    return dataclasses.replace(info, threshold=threshold, described=described)


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
