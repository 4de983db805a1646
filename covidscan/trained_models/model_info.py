"""What is needed beside a network's weights to use it on a study; goes with an exported model as JSON."""

import dataclasses
import json
from typing import Any

from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model was made for.

    Attributes:
      task: "binary" (label 1 is positive), "severity" (ordered) or "classes".
      label_names: a name for each label.
      threshold: operating point, frozen on validation studies; None for "classes".
      temperatures: of each network of the ensemble, by which its logits are divided.
      grid: what studies are brought to, see `Grid.parse`.
      windows: (level, width) of each HU window.
      trained_on: the data set, NAME/CONFIG.
      described: how threshold and temperature were chosen, in a sentence.
      typical: how the training studies look, to tell which studies do not; None where that is not known.
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
        """(slice, row, column) of a prepared study."""
        return Grid.parse(self.grid).shape

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON can hold them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelInfo":
        """Read what `to_json` gave.

        Raises:
          UserError: a field is missing or unknown.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if fields != set(values):
            raise UserError(f"was written by another version (differs in: {', '.join(sorted(fields ^ set(values)))})")
        pairs = {"windows": tuple((level, width) for level, width in values["windows"])}
        lists = {name: tuple(values[name]) for name in ("label_names", "temperatures")}
        return cls(**{**values, **lists, **pairs})
