"""Prediction of one study, as a row of CSV, a line of JSON or HTML for a notebook."""

import base64
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from html import escape as escape_html
from typing import Any

from covidscan.data.domain_shift import Flag
from covidscan.metrics.csv_cells import escape
from covidscan.trained_models.model_info import ModelInfo
from tfds_mosmed.errors import one_line, visible

DIGITS = 6  # of probabilities; float32 networks agree on fewer between machines
LABEL_PREFIX = "probability_"  # of columns
SOURCE = "source"  # the last column; earlier versions lack it


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction of one study.

    Attributes:
      path: the study, as the user named it.
      probability: of disease, after recalibration: of "positive", of any grade above the first, or, in the task
        "classes", of the predicted class; None if the study could not be read, and in the tasks
        "multilabel" and "regression".
      decision: the label at the frozen threshold, or the most probable class; in the task "multilabel" the labels whose
        probability reaches their threshold, with "|" between them, or "none"; None if the study could not be read, and
        in the task "regression".
      probabilities: label -> probability, after recalibration; they sum to 1, but in the task "multilabel".
      flags: differences from the training studies; a flagged prediction may be meaningless.
      seen: the measurements behind the flags, name -> number.
      warnings: irregularities of the study's files.
      seconds: duration of reading, preparing and predicting.
      error: cause and remedy in one line, if the study could not be predicted.
      files: names of the explanation's files in the output folder.
      threshold: of the decision, in the task "severity" of the first grade; None in a task without one.
      model: 12 digits of the SHA-256 of the networks that predicted, followed by "+tta=SET" with views, and by
        "+prevalence=0.1" where probabilities are adapted to that prevalence.
      number: of the study in the output folder, from 1, which pages have for a title; None without such a folder.
      file: the file or folder that was read, in the output folder alone: what the user did not type of its path may
        identify the patient.
      source: 12 digits that change with the names, sizes and times of the study's files and, after "+", 6 that change
        with the code that read and prepared it, which earlier versions lack; in the output folder alone.
      grade_thresholds: of the decision in the task "severity", one for each question "graver than k";
        in the task "multilabel" one for each label.
      prevalence: to which the probabilities are adapted; None: to none.
      value: the predicted number in the task "regression", in the unit of the training labels; otherwise None.
      picture: draws one slice with the Grad-CAM, as PNG; None for an exported model.
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
    threshold: float | None = None
    model: str = ""
    number: int | None = None
    file: str | None = None
    source: str | None = None
    grade_thresholds: tuple[float, ...] = ()
    prevalence: float | None = None
    value: float | None = None
    picture: Callable[[], bytes] | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_text(self) -> str:
        """Return lines for a reader: probabilities beside their threshold, then flags and warnings; or the error."""
        if self.error:
            return one_line(self.error)
        shown = f"{self.path}: "
        if self.value is not None:
            shown += f"{self.value:.4g}"
        else:
            chances = ", ".join(f"{name} {p:.4f}" for name, p in self.probabilities.items())
            shown += f"{self.decision}; probabilities: {chances}"
        if thresholds := self.grade_thresholds or (() if self.threshold is None else (self.threshold,)):
            shown += f"; threshold{'s' * (len(thresholds) > 1)}: {', '.join(f'{each:.4f}' for each in thresholds)}"
        return "\n  ".join(map(one_line, [shown, *self.flags, *self.warnings]))

    def to_json(self) -> str:
        """Return one line of JSON."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["flags"] = [flag._replace(seen=visible(flag.seen))._asdict() for flag in self.flags]
        values |= {"warnings": [visible(line) for line in self.warnings], "error": self.error and visible(self.error)}
        del values["picture"]
        value = None if self.value is None else float(_value(self.value))
        return json.dumps(_rounded(values) | {"value": value}, allow_nan=False)

    def __getstate__(self) -> dict[str, Any]:
        """Drop `picture` when pickled: it holds the compiled network."""
        return self.__dict__ | {"picture": None}

    def _repr_html_(self) -> str:
        """Return HTML for a notebook, with the slice that `picture` draws."""

        def text(value: object) -> str:
            return escape_html(one_line(value))

        rows = "".join(f"<tr><td>{text(name)}</td><td>{p:.3f}</td></tr>" for name, p in self.probabilities.items())
        notes = "".join(f"<li>{text(line)}</li>" for line in (*self.flags, *self.warnings))
        image = ""
        if self.picture is not None:
            data = base64.b64encode(self.picture()).decode()
            image = f'<img alt="Slice with its Grad-CAM" src="data:image/png;base64,{data}">'
        predicted = self.decision if self.value is None else f"{self.value:.4g}"
        decision = f"<b>{text(predicted or 'no prediction')}</b>"
        return f"<div><p>{text(self.path)}: {decision}</p><table>{rows}</table><ul>{notes}</ul>{image}</div>"

    def to_csv(self, label_names: Sequence[str]) -> str:
        """Return one row with the columns of `csv_header`; `label_names` are empty in the task "regression"."""
        predicted = [
            _number(self.probability),
            self.decision and escape(self.decision),
            *(_number(self.probabilities.get(name)) for name in label_names),
        ]
        cells = [
            escape(self.path),
            *(predicted if label_names else [_value(self.value)]),
            escape("; ".join(map(str, self.flags))),
            escape("; ".join(self.warnings)),
            f"{self.seconds:.3f}",
            self.error and escape(self.error),
            _number(self.threshold),
            self.model,
            self.number,
            self.file and escape(self.file),
            " ".join(self.files),
            self.source,
        ]
        return csv_line(cells)


def csv_header(info: ModelInfo) -> str:
    """Return the header: path, probability, decision, probability_LABEL …, flags, warnings, seconds, error … source.

    In the task "regression" the column value is in place of probability, decision and probability_LABEL.
    """
    each = [escape(f"{LABEL_PREFIX}{name}") for name in info.label_names]
    predicted = ["value"] if info.task == "regression" else ["probability", "decision", *each]
    last = ["flags", "warnings", "seconds", "error"]
    return csv_line(["path", *predicted, *last, "threshold", "model", "number", "file", "files", SOURCE])


def csv_line(cells: Sequence[Any]) -> str:
    """Return a row of CSV, without its line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)  # quotes cells that contain line feeds
    return text.getvalue().removesuffix("\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}f}"


def _value(value: float | None) -> str:
    """Format a predicted number, in whatever unit: of a small one the first digits."""
    return _number(value) if value is None or value == 0 or abs(value) >= 0.1 else f"{value:.{DIGITS}g}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value
