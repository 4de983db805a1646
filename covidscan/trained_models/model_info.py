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
      task: "binary" (label 1 is positive), "severity" (ordered) or "classes".
      label_names: a name for each label.
      threshold: of the decision, chosen on the validation studies; None for "classes".
      temperatures: by which the logits of each network of the ensemble are divided.
      grid: of prepared studies, see `Grid.parse`.
      windows: (level, width) of each HU window.
      trained_on: the data set, NAME/CONFIG.
      described: how threshold and temperature were chosen, in a sentence.
      typical: `ReferenceRanges` of the training studies as JSON, to flag studies outside of them; None where not known.
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

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape (slice, row, column) of a prepared study."""
        return Grid.parse(self.grid).shape

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelInfo":
        """Load what `to_json` returned.

        Raises:
          UserError: a field is missing or unknown.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if fields != set(values):
            raise UserError(f"was written by another version (differs in: {', '.join(sorted(fields ^ set(values)))})")
        pairs = {"windows": tuple((level, width) for level, width in values["windows"])}
        lists = {name: tuple(values[name]) for name in ("label_names", "temperatures")}
        return cls(**{**values, **lists, **pairs})
