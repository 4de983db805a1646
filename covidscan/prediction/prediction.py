"""What a model says of one study, and how it is written: a row of CSV, a line of JSON."""

import base64
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from html import escape as _escape
from typing import Any

from covidscan.data.domain_shift import Flag
from covidscan.trained_models.model_info import ModelInfo

DIGITS = 6  # of probabilities, more than a network's float32 holds on two machines alike


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one study.

    Attributes:
      path: the study, as the user named it.
      probability: of disease, after temperature scaling: of "positive", of any grade above the first, or, where labels
        are classes, of the one decided for; None where the study could not be read.
      decision: the label at the frozen threshold, or the likeliest class; None where the study could not be read.
      probabilities: label -> probability, after temperature scaling; they sum to 1.
      flags: in what the study is unlike what the model was trained on; with any of these the answer may mean nothing.
      seen: what was measured for these flags, name -> number.
      warnings: what is odd about the study's files.
      seconds: that reading, preparing and predicting it took.
      error: why there is no answer, and the way out, in one line.
      files: of its explanation, by their names in the output folder.
      picture: draws the most telling slice with what speaks for the disease, as PNG; None where that is not known.
    """

    path: str
    probability: float | None
    decision: str | None
    probabilities: dict[str, float]
    flags: tuple[Flag, ...]
    seen: dict[str, float]
    warnings: tuple[str, ...]
    seconds: float
    error: str | None = None
    files: tuple[str, ...] = ()
    picture: Callable[[], bytes] | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_json(self) -> str:
        """Write one line of JSON."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["flags"] = [flag._asdict() for flag in self.flags]
        del values["picture"]
        return json.dumps(_rounded(values), allow_nan=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what draws: it holds the compiled network."""
        return self.__dict__ | {"picture": None}

    def _repr_html_(self) -> str:
        """Show the answer in a notebook, with a slice where `picture` draws one."""
        said = "".join(f"<tr><td>{_escape(name)}</td><td>{p:.3f}</td></tr>" for name, p in self.probabilities.items())
        told = "".join(f"<li>{_escape(str(line))}</li>" for line in (*self.flags, *self.warnings))
        image = ""
        if self.picture is not None:
            data = base64.b64encode(self.picture()).decode()
            image = f'<img alt="Slice with what speaks for the disease" src="data:image/png;base64,{data}">'
        answer = f"<b>{_escape(self.decision or 'no answer')}</b>"
        return f"<div><p>{_escape(self.path)}: {answer}</p><table>{said}</table><ul>{told}</ul>{image}</div>"

    def to_csv(self, label_names: Sequence[str]) -> str:
        """Write one row of the columns of `csv_header`."""
        cells = [
            self.path,
            _number(self.probability),
            self.decision,
            *(_number(self.probabilities.get(name)) for name in label_names),
            "; ".join(map(str, self.flags)),
            "; ".join(self.warnings),
            f"{self.seconds:.3f}",
            self.error,
        ]
        return _line(cells)


def csv_header(info: ModelInfo) -> str:
    """Name the columns: path, probability, decision, probability_LABEL …, flags, warnings, seconds, error."""
    each = [f"probability_{name}" for name in info.label_names]
    return _line(["path", "probability", "decision", *each, "flags", "warnings", "seconds", "error"])


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)  # no line feed within a cell is left unquoted
    return text.getvalue().removesuffix("\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value
