"""Predictions of a model, in memory and as predictions.csv."""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from covidscan.metrics import recalibration, thresholds
from covidscan.metrics.csv_cells import escape, unescape
from covidscan.metrics.results import OperatingPoint
from tfds_mosmed.ct_table.cells import NONE, SEVERAL
from tfds_mosmed.errors import UserError

VALUE = "value"  # in place of a label's name, of regression
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a model on some studies, with the reference standard.

    Attributes:
      study_id: (study,).
      category: (study,), as the data set has it.
      label: (study,), int; of multilabel (study, label), 0 or 1; of regression (study,), float64.
      probability: (study, label), float64, each row sums to 1: after recalibration; decisions are made on it. Of
        multilabel they are independent; of regression it is the predicted value, (study, 1).
      label_names: a name for each label.
      task: "binary" (label 1 is positive), "severity" (ordered), "classes", "multilabel" or "regression".
      uncalibrated: (study, label), the network's own probabilities; `probability` itself where nothing was changed.
      patient: (study,), int, a number for each study's patient; None where no patient is known to have several studies.

    Raises:
      ValueError: the lengths differ or a label has no name.
      UserError: there is no study, or a probability is not a number.
    """

    study_id: Sequence[str]
    category: Sequence[str]
    label: np.ndarray
    probability: np.ndarray
    label_names: tuple[str, ...]
    task: str
    uncalibrated: np.ndarray = None  # type: ignore[assignment] - set below
    patient: np.ndarray | None = None

    def __post_init__(self):
        is_value, is_set = self.task == "regression", self.task == "multilabel"
        object.__setattr__(self, "label", np.asarray(self.label, np.float64 if is_value else np.int64))
        object.__setattr__(self, "probability", np.asarray(self.probability, np.float64))
        own = self.probability if self.uncalibrated is None else np.asarray(self.uncalibrated, np.float64)
        object.__setattr__(self, "uncalibrated", own)
        object.__setattr__(self, "label_names", tuple(self.label_names))
        studies, names = len(self.study_id), len(self.label_names)
        if not studies:
            raise UserError("no study to evaluate: choose another --split or --dataset")
        shapes = {self.probability.shape, self.uncalibrated.shape}
        if not (len(self.category) == len(self.label) == studies and shapes == {(studies, names)}):
            raise ValueError(
                f"`category` (={len(self.category)}), `label` (={len(self.label)}), `probability` "
                f"(={self.probability.shape}) and `uncalibrated` (={self.uncalibrated.shape}) must fit {studies} "
                f"studies and {names} labels."
            )
        if self.patient is not None and len(self.patient) != studies:
            raise ValueError(f"`patient` (={len(self.patient)}) must fit {studies} studies.")
        if len(set(self.study_id)) != studies:
            raise ValueError("`study_id` must hold each study once.")
        if is_set and self.label.shape != self.probability.shape:
            raise ValueError(f"`label` (={self.label.shape}) must have a column for each of {names} labels.")
        if is_set and not np.isin(self.label, (0, 1)).all():
            raise ValueError("`label` must be 0 or 1.")
        if not (is_value or is_set) and (self.label.min() < 0 or self.label.max() >= names):
            raise ValueError(f"`label` must be from 0 to {names - 1}.")
        if not np.isfinite(self.probability).all():
            raise UserError(
                "the network's predictions are not finite, its training diverged: use --checkpoint=best, "
                "or train with a lower --learning_rate"
            )
        if is_set and not ((self.probability >= 0) & (self.probability <= 1)).all():
            raise ValueError("`probability` must be from 0 to 1.")
        if not (is_value or is_set) and not np.allclose(self.probability.sum(1), 1, atol=1e-3):
            raise ValueError("each row of `probability` must sum to 1.")

    def calibrated(self, point: OperatingPoint) -> "Predictions":
        """Return the predictions with the network's own probabilities recalibrated as an operating point says."""
        if self.task == "regression":
            return self
        probability = recalibration.recalibrate(self.task, self.uncalibrated, point.temperature, point.offsets)
        return dataclasses.replace(self, probability=probability)

    def to_csv(self, threshold: thresholds.Threshold = 0.5) -> str:
        """Write a line a study: study_id, label, probability_NAME …, uncalibrated_NAME …, prediction, category.

        Of regression study_id, label, prediction, category. Where patients have several studies, "patient" is last, a
        number that tells them apart and nothing else. Labels are written by name, floats so that they read back
        to the same bits, names so that no spreadsheet takes one for a formula.

        Args:
          threshold: see `thresholds.decide`.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        last = [[]] * len(self.study_id) if self.patient is None else self.patient[:, None].tolist()
        names = [] if self.patient is None else ["patient"]
        if self.task == "regression":
            writer.writerow(["study_id", "label", "prediction", "category", *names])
            for study_id, category, patient, *numbers in zip(
                self.study_id, self.category, last, self.label.tolist(), self.probability[:, 0].tolist(), strict=True
            ):
                writer.writerow([escape(study_id), *map(repr, numbers), escape(category), *patient])
            return text.getvalue()
        columns = [escape(f"{kind}_{name}") for kind in ("probability", "uncalibrated") for name in self.label_names]
        writer.writerow(["study_id", "label", *columns, "prediction", "category", *names])
        chosen = thresholds.decide(self.task, self.probability, threshold)
        numbers = np.concatenate([self.probability, self.uncalibrated], axis=1).tolist()
        for i, study_id in enumerate(self.study_id):
            prediction = _name(self.task, self.label_names, chosen[i])
            texts = study_id, label_text(self, i), prediction, self.category[i]
            study_id, label, *texts = map(escape, texts)
            writer.writerow([study_id, label, *map(repr, numbers[i]), *texts, *last[i]])
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str, task: str) -> "Predictions":
        """Read what `to_csv` wrote.

        Raises:
          UserError: it is not such a file.
        """
        rows = list(csv.DictReader(io.StringIO(text)))
        columns = [unescape(column) for column in rows[0]] if rows else []
        names = tuple(column.removeprefix("probability_") for column in columns if column.startswith("probability_"))

        def numbers(kind: str) -> np.ndarray:
            return np.asarray([[float(row[escape(f"{kind}_{name}")]) for name in names] for row in rows])

        try:
            studies: dict[str, Any] = {
                "study_id": [unescape(row["study_id"]) for row in rows],
                "category": [unescape(row["category"]) for row in rows],
                "task": task,
                "patient": np.asarray([int(row["patient"]) for row in rows]) if "patient" in columns else None,
            }
            if task == "regression":
                return cls(
                    label=np.asarray([float(row["label"]) for row in rows]),
                    probability=np.asarray([[float(row["prediction"])] for row in rows]),
                    label_names=(VALUE,),
                    **studies,
                )
            return cls(
                label=_read_labels([unescape(row["label"]) for row in rows], names, task),
                probability=numbers("probability"),
                label_names=names,
                uncalibrated=numbers("uncalibrated"),
                **studies,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a predictions.csv as covidscan writes it ({error}): evaluate again") from error

    def read_decisions(self, text: str) -> np.ndarray:
        """Read the column "prediction" of the same file: as `thresholds.decide`; of regression the values."""
        if self.task == "regression":
            return self.probability[:, 0]
        rows = csv.DictReader(io.StringIO(text))
        return _read_labels([unescape(row["prediction"]) for row in rows], self.label_names, self.task)

    @classmethod
    def pool(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenate predictions of disjoint patients, as those of the folds of a cross-validation."""
        own = [np.arange(len(part.label)) if part.patient is None else part.patient for part in parts]
        starts = np.cumsum([0, *(each.max() + 1 for each in own[:-1])])
        numbered = np.concatenate([each + start for each, start in zip(own, starts, strict=True)])
        return cls(
            study_id=[study_id for part in parts for study_id in part.study_id],
            category=[category for part in parts for category in part.category],
            label=np.concatenate([part.label for part in parts]),
            probability=np.concatenate([part.probability for part in parts]),
            label_names=parts[0].label_names,
            task=parts[0].task,
            uncalibrated=np.concatenate([part.uncalibrated for part in parts]),
            patient=numbered if any(part.patient is not None for part in parts) else None,
        )


def label_text(predictions: Predictions, row: int) -> str:
    """Return the reference standard of a study by name; of regression the number."""
    return _name(predictions.task, predictions.label_names, predictions.label[row])


def _name(task: str, names: tuple[str, ...], label: Any) -> str:
    """Write a label: a number of regression, a set of multilabel, or an index of a name."""
    if task == "regression":
        return f"{label:.6g}"
    return join_names(names, label) if task == "multilabel" else names[label]


def with_sides(names: Sequence[str]) -> str:
    """Return the names of labels that are of the left or the right, which a mirror image exchanges; "" of none."""
    return ", ".join(name for name in names if _SIDE.search(name))


def join_names(names: Sequence[str], has: np.ndarray) -> str:
    """Write a set of labels, has (label,) 0 or 1, as the names with "|" between them, or as none."""
    return SEVERAL.join(name for name, yes in zip(names, has, strict=True) if yes) or NONE


def _read_labels(texts: Sequence[str], names: tuple[str, ...], task: str) -> np.ndarray:
    if task != "multilabel":
        return np.asarray([names.index(text) for text in texts], np.int64)
    rows = np.zeros((len(texts), len(names)), np.int64)
    for row, text in zip(rows, texts, strict=True):
        if text != NONE:
            row[[names.index(name) for name in text.split(SEVERAL)]] = 1
    return rows
