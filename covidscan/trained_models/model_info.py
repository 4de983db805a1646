"""Information that a model needs besides its weights; part of an exported model as JSON."""

import dataclasses
import json
from typing import Any

from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Task, grid, windows and operating point of a model.

    Attributes:
      task: "binary" (label 1 is positive), "severity" (ordered), "classes", "multilabel" or "regression".
      label_names: a name for each label.
      threshold: of the decision, chosen on the validation studies; None for a task without one.
      temperatures: by which the logits of each network of the ensemble are divided.
      grid: of prepared studies, see `Grid.parse`.
      windows: (level, width) of each HU window.
      trained_on: the data set, NAME/CONFIG.
      described: how threshold and recalibration were chosen, in a sentence.
      typical: `ReferenceRanges` of the training studies as JSON, to flag studies outside of them; None where not known.
      offsets: added to the logits of each network, see `recalibration.recalibrate`; empty of older models.
      grade_thresholds: see `OperatingPoint.grade_thresholds`.
      criterion: by which the threshold was chosen; "" of older models, and where the networks' differ.
      prevalence: see `OperatingPoint.prevalence`.
      tta: see `OperatingPoint.tta`.
    """

    task: str
    label_names: tuple[str, ...]
    threshold: float | None
    temperatures: tuple[float, ...]
    grid: str
    windows: tuple[tuple[float, float], ...]
    trained_on: str
    described: str
    typical: dict[str, Any] | None
    offsets: tuple[tuple[float, ...], ...] = ()
    grade_thresholds: tuple[float, ...] = ()
    criterion: str = ""
    prevalence: float | None = None
    tta: str = ""

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape (slice, row, column) of a prepared study."""
        return Grid.parse(self.grid).shape

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; without what older models have not, where there is nothing in it."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in values.items() if value or name not in _LATER}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelInfo":
        """Load what `to_json` returned.

        Raises:
          UserError: a field is missing or unknown.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        differing = sorted((fields ^ set(values)) - set(_LATER))
        if differing:
            raise UserError(f"was written by another version (differs in: {', '.join(differing)})")
        pairs = {"windows": tuple((level, width) for level, width in values["windows"])}
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("label_names", "temperatures")}
        lists["offsets"] = tuple(map(tuple, values.get("offsets", ())))
        lists["grade_thresholds"] = tuple(values.get("grade_thresholds", ()))
        return cls(**{**values, **lists, **pairs})


@dataclasses.dataclass(frozen=True)
class Answer:
    """Prediction of a study, as far as files that explain it repeat it.

    Attributes:
      caption: in one line.
      probabilities: of each label, after recalibration.
      model: see `covidscan.prediction.prediction.Prediction.model`.
    """

    caption: str
    probabilities: dict[str, float]
    model: str


_LATER = ("offsets", "grade_thresholds", "criterion", "prevalence", "tta")  # fields that older models lack
