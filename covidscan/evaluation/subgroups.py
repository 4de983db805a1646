"""Subgroups of studies: by category, by acquisition, and by the columns of a metadata file."""

import collections
import csv
import io
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from etils import epath

from covidscan.data.dataset import Dataset
from covidscan.evaluation.evaluation_set import EvaluationSet
from covidscan.metrics import intervals
from covidscan.metrics.predictions import Predictions
from covidscan.metrics.results import Group, Subgroups
from covidscan.metrics.thresholds import Threshold, of_studies
from tfds_mosmed.building.index import Listed
from tfds_mosmed.errors import UserError

CATEGORY = "category"  # the column that goes with the label
MOST_BINS = 4
FEWEST_STUDIES = 5  # of a group of texts or a bin of numbers; fewer say nothing
NOT_GIVEN, OTHER = "not given", "other"

Value = str | float | None
Members = dict[str, np.ndarray]  # name of a group -> indices of its studies


def evaluate_subgroups(
    predictions: Predictions, threshold: Threshold, columns: Mapping[str, Sequence[Value]]
) -> list[Subgroups]:
    """Evaluate a model on groups of studies.

    In "category" of the binary task a group has one label only, so it is evaluated together with all studies of the
    other label, and its name says so.

    Args:
      predictions: of the model.
      threshold: operating point.
      columns: name -> a value for each study, None where there is none. Numbers are cut into four bins of like size, of
        four different values at most each is a group; texts are groups, those of fewer than five studies form one.
        The name may end with a unit: "in-plane spacing (mm)".

    Returns:
      The groups of each column that has two or more, with the metrics of `intervals.key_metrics`.
    """
    task, label, probability = predictions.task, predictions.label, predictions.probability
    patient = predictions.patient
    found = []
    for by, values in columns.items():
        if len(values) != len(label):
            raise ValueError(f"column {by!r} (={len(values)}) must have a value for each of {len(label)} studies.")
        groups = _groups(by, values)
        if len(groups) < 2:
            continue
        if task == "binary" and by == CATEGORY:
            groups = dict(_with_other_label(name, members, label) for name, members in groups.items())
        own = [of_studies(threshold, members) for members in groups.values()]
        rows = [
            Group(
                name=name,
                num_studies=len(members),
                num_positive=None
                if task in ("classes", "multilabel", "regression")
                else int((label[members] > 0).sum()),
                metrics=intervals.key_metrics(
                    task, label[members], probability[members], at, None if patient is None else patient[members]
                ),
            )
            for (name, members), at in zip(groups.items(), own, strict=True)
        ]
        found.append(Subgroups(by, rows))
    return found


def _with_other_label(name: str, members: np.ndarray, label: np.ndarray) -> tuple[str, np.ndarray]:
    own = np.unique(label[members])
    if len(own) > 1:  # rare categories of both labels, pooled
        return name, members
    others = "negatives" if own[0] == 1 else "positives"
    return f"{name} against all {others}", np.concatenate([members, np.flatnonzero(label != own[0])])


def _groups(by: str, values: Sequence[Value]) -> Members:
    """Sort studies into groups, in the order in which they are shown."""
    given = [index for index, value in enumerate(values) if value is not None]
    present = [values[index] for index in given]
    if all(isinstance(value, int | float | np.number) for value in present):
        unit = by.rpartition("(")[2].removesuffix(")") if by.endswith(")") else ""
        groups = _bins(np.array(present, np.float64), f" {unit}" if unit else "")
    else:
        groups = _pooled([str(value) for value in present])
    groups = {name: np.array(given)[members] for name, members in groups.items()}
    if len(given) < len(values):
        groups[NOT_GIVEN] = np.setdiff1d(np.arange(len(values)), given)
    return groups


def _bins(values: np.ndarray, unit: str) -> Members:
    """Cut numbers at their quantiles; where there are few different ones each is a group."""
    rounded = np.array([float(_number(value)) for value in values])  # so that no two bins get the same name
    different = np.unique(rounded)
    if len(different) > MOST_BINS:
        bins = max(1, min(MOST_BINS, len(values) // FEWEST_STUDIES))
        cuts = np.quantile(rounded, np.arange(1, bins) / bins)
        index = np.searchsorted(cuts, rounded, side="left")
    else:
        index = np.searchsorted(different, rounded)
    groups: Members = {}
    for number in np.unique(index):
        members = np.flatnonzero(index == number)
        low, high = (_number(end) for end in (rounded[members].min(), rounded[members].max()))
        groups[(low if low == high else f"{low} to {high}") + unit] = members
    return groups


def _number(value: float) -> str:
    """Format a whole number as it is, another with three digits."""
    return (
        str(round(value)) if value == round(value) else np.format_float_positional(value, 3, fractional=False, trim="-")
    )


def _pooled(values: list[str]) -> Members:
    counts = collections.Counter(values)
    names = [value if counts[value] >= FEWEST_STUDIES else OTHER for value in values]
    order = sorted(set(names) - {OTHER}) + [OTHER] * (OTHER in names)
    return {name: np.flatnonzero(np.array(names) == name) for name in order}


def columns(evaluation_set: EvaluationSet, metadata: str | None) -> dict[str, Sequence[Value]]:
    """Return the columns that make subgroups: category, spacing, slices, site, and those of a table or metadata file.

    Args:
      evaluation_set: the studies.
      metadata: CSV file, or None.

    Raises:
      UserError: the metadata cannot be used.
    """
    rows, index = evaluation_set.rows, evaluation_set.dataset.index
    sites = index.sites()
    listed = [index.listed.get(study_id, Listed()).groups for study_id in evaluation_set.study_ids]
    return {
        **{name: _values([one.get(name) for one in listed]) for name in dict.fromkeys(chain.from_iterable(listed))},
        "site": [sites[row] or None for row in rows],
        **_of_label(evaluation_set.dataset, rows),
        "in-plane spacing (mm)": index.source_spacing_mm[rows, 1].tolist(),
        "slice spacing (mm)": index.source_spacing_mm[rows, 0].tolist(),
        "slices": index.num_slices[rows].tolist(),
        **(read_metadata(metadata, evaluation_set.study_ids) if metadata else {}),
    }


def _of_label(dataset: Dataset, rows: np.ndarray) -> dict[str, Sequence[Value]]:
    if dataset.labels.is_number:
        return {"label": dataset.labels.values[rows].tolist()}
    return {CATEGORY: [dataset.categories[row] for row in rows]}


def read_metadata(path: epath.PathLike, study_ids: Sequence[str]) -> dict[str, list[Value]]:
    """Read a metadata file: CSV with a column "study_id" and others, a line a study.

    Args:
      path: the file, UTF-8.
      study_ids: the evaluated studies; the file may hold others, and need not hold all.

    Returns:
      Column -> a value for each of `study_ids`: numbers where all of the column's values are, else texts; None where
      the field is empty or the study is not in the file.

    Raises:
      UserError: the file cannot be read, has no such column, holds an id twice or none of `study_ids`.
    """
    try:
        rows = csv.DictReader(io.StringIO(epath.Path(path).read_bytes().decode("utf-8-sig")), restkey="")
        names = list(rows.fieldnames or ["nothing"])
        if "study_id" not in names:
            raise UserError(f"{path}: has no column study_id but {', '.join(names)}: name it so, with commas between")
        lines = {}
        for row in rows:
            if row["study_id"] in lines:
                raise UserError(f"{path}: study {row['study_id']} occurs twice: give every study one line")
            lines[row["study_id"]] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}): give a CSV file in UTF-8") from error
    if not lines.keys() & set(study_ids):
        raise UserError(
            f"{path}: holds none of the evaluated studies, {study_ids[0]} among them: use the ids of predictions.csv"
        )
    names = [name for name in rows.fieldnames or () if name and name != "study_id"]
    return {name: _values([lines.get(study_id, {}).get(name) for study_id in study_ids]) for name in names}


def _values(texts: Sequence[str | None]) -> list[Value]:
    """Turn the fields of a column into numbers if all are, and empty ones into None."""
    stripped: list[Value] = [(text or "").strip() or None for text in texts]
    try:
        numbers: list[Value] = [None if text is None else float(text) for text in stripped]
    except ValueError:
        return stripped
    finite = np.isfinite([number for number in numbers if number is not None]).all()
    return numbers if finite else stripped
