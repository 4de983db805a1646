"""Format of metrics.json: written from the dataclasses of `results`, and read into them.

It holds its own checksum, and those of the other files of the evaluation.
"""

import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from etils import epath

from covidscan.metrics.provenance import Provenance
from covidscan.metrics.results import Baseline, Evaluation, Group, Metric, Reliability
from covidscan.metrics.signed_json import check_signed, sign
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError, one_line

FILE = "metrics.json"
FILES = "files"  # in it: name -> SHA-256 of each other file of the evaluation

# Where the file has another name for a field than the code.
_NAMES = {
    "metrics": "figures",
    "description": "described",
    "explanation": "what",
    "test_accesses": "test_openings",
    "options": "wishes",
}
# Where the file holds fewer fields of a `Metric` than it has.
_METRIC_FIELDS = {
    Reliability: ("value", "interval", "method"),
    Baseline: ("value", "interval"),
    Group: ("value", "interval"),
}
# Fields that older files lack, so that those still equal what is computed again.
_LEFT_OUT_IF_EMPTY = (
    "warnings",
    "fewest_studies",
    "network",
    "choices",
    "data_warnings",
    "left_out",
    "cohort",
    "num_in_smallest_fold",
    "offsets",
    "grade_thresholds",
    "prevalence",
    "adapted_to",
    "smooths_targets",
    "tta",
    "regression",
    "labels",
)


def read(
    folder: epath.PathLike, owner: str | None = None, *, edited: bool = False
) -> tuple[Evaluation, Provenance] | None:
    """Read an evaluation's metrics.json; None where there is none.

    Args:
      folder: of the evaluation.
      owner: id of the run that was evaluated; None of one without an id.
      edited: whether values may have been edited.

    Raises:
      UserError: it is not as it was written.
    """
    path = epath.Path(folder) / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        evaluation, provenance = from_json(content if edited else check_signed(content, "it", owner))
        if evaluation.operating_point is None:
            raise TypeError("no operating point")
        return evaluation, provenance
    except NOT_AS_WRITTEN as error:
        raise UserError(f"{path} is not as it was written ({error!r}): evaluate again") from error


def read_file(folder: epath.PathLike, name: str) -> bytes:
    """Read another file of an evaluation, which must be the one that was written with metrics.json.

    Raises:
      UserError: it is missing, or another one; earlier versions did not store which it was.
    """
    path = epath.Path(folder) / name
    try:
        content, written = path.read_bytes(), json.loads((epath.Path(folder) / FILE).read_bytes())
        if written.get(FILES, {}).get(name) not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError(f"{FILE} was written with another one")
        return content
    except (OSError, *NOT_AS_WRITTEN) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"{path} is not as it was written ({reason}): evaluate again") from error


def to_json(evaluation: Evaluation, provenance: Provenance) -> dict[str, Any]:
    """Return what the file holds of an evaluation: its results, and its provenance as "context"."""
    return {**evaluation_to_json(evaluation), "context": dump(provenance)}


def to_text(
    evaluation: Evaluation, provenance: Provenance, files: Mapping[str, bytes], owner: str | None = None
) -> str:
    """Return the file.

    Args:
      evaluation: the results.
      provenance: what they were made from.
      files: the other files of the evaluation, by name.
      owner: id of the run that was evaluated.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content = sign({**to_json(evaluation, provenance), FILES: hashes}, owner)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the file holds of the results."""
    values = dump(evaluation)
    if evaluation.disease is None:
        del values["disease"]
    return values


def from_json(values: Mapping[str, Any]) -> tuple[Evaluation, Provenance]:
    """Load what `to_json` returned.

    Raises:
      AttributeError, KeyError, TypeError: it is something else.
    """
    return load(Evaluation, values), load(Provenance, values["context"])


def dump(value: Any, metric_fields: tuple[str, ...] = ()) -> Any:
    """Turn dataclasses into dicts and tuples into lists, with the names of the file."""
    if is_dataclass(value):
        parts = {spec.name: getattr(value, spec.name) for spec in fields(value)}
        if isinstance(value, Metric) and metric_fields:
            parts = {name: parts[name] for name in metric_fields}
        below = _METRIC_FIELDS.get(type(value), ())
        kept = {name: part for name, part in parts.items() if part or name not in _LEFT_OUT_IF_EMPTY}
        return {_NAMES.get(name, name): dump(part, below) for name, part in kept.items()}
    if isinstance(value, dict):
        return {name: dump(part, metric_fields) for name, part in value.items()}
    return [dump(part) for part in value] if isinstance(value, list | tuple) else value


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of dataclasses, dicts, lists and tuples in which each text, of keys too, is changed."""
    if isinstance(value, str):
        return change(value)
    if is_dataclass(value):
        changed = {spec.name: map_texts(getattr(value, spec.name), change) for spec in fields(value)}
        return replace(typing.cast(Any, value), **changed)
    if isinstance(value, dict):
        return {map_texts(name, change): map_texts(part, change) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)([map_texts(part, change) for part in value])
    return value


def load(kind: Any, value: Any) -> Any:
    """Turn what `dump` returned into the dataclass, or other type, that it was made from."""
    if value is None:
        return None
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # each is of a type and None
        return load(parameters[0], value)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        keys = {spec.name: _NAMES.get(spec.name, spec.name) for spec in fields(kind)}
        parts = {name: load(hints[name], value[key]) for name, key in keys.items() if key in value}
        return typing.cast(type, kind)(**parts)
    if origin is dict:
        return {name: load(parameters[1], part) for name, part in value.items()}
    if origin is list:
        return [load(parameters[0], part) for part in value]
    return tuple(value) if origin is tuple else value
