"""Where a model is better and where worse: by category, by how a study was scanned, by whatever else is known of it."""

import collections
import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from covidscan.metrics import thresholds
from covidscan.metrics.figures import judged_figures
from tfds_mosmed.errors import UserError

CATEGORY = "category"  # the column that goes with the label
MOST_BINS = 4
FEWEST_STUDIES = 5  # of a group of texts or a bin of numbers; fewer tell nothing
NOT_GIVEN, OTHER = "not given", "other"

Value = str | float | None
Groups = dict[str, np.ndarray]  # name -> places of its studies


def subgroups(
    task: str,
    label: np.ndarray,
    probability: np.ndarray,
    threshold: thresholds.Threshold,
    columns: Mapping[str, Sequence[Value]],
) -> list[dict[str, Any]]:
    """Judge a model on groups of studies.

    In "category" of the binary task a group has one label only, so it is judged together with all studies of the other
    label, as its name says.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point.
      columns: name -> a value for each study, None where there is none. Numbers are cut into four bins of like size, of
        four different values at most each is a group; texts are groups, those of fewer than five studies one together.
        A unit may end the name: "in-plane spacing (mm)".

    Returns:
      For each column that makes two groups or more {"by": name, "groups": [{"name", "num_studies", "num_positive",
      "figures"}]}, the figures those of `judged_figures`. Positive of severity is graver than the first grade;
      `num_positive` of classes is None.
    """
    label, probability = np.asarray(label), np.asarray(probability, np.float64)
    judged = []
    for by, values in columns.items():
        if len(values) != len(label):
            raise ValueError(f"column {by!r} (={len(values)}) must have a value for each of {len(label)} studies.")
        groups = _groups(by, values)
        if len(groups) < 2:
            continue
        if task == "binary" and by == CATEGORY:
            groups = dict(_with_other_label(name, members, label) for name, members in groups.items())
        own = [threshold[members] if isinstance(threshold, np.ndarray) else threshold for members in groups.values()]
        rows = [
            {
                "name": name,
                "num_studies": len(members),
                "num_positive": None if task == "classes" else int((label[members] > 0).sum()),
                "figures": judged_figures(task, label[members], probability[members], at),
            }
            for (name, members), at in zip(groups.items(), own, strict=True)
        ]
        judged.append({"by": by, "groups": rows})
    return judged


def _with_other_label(name: str, members: np.ndarray, label: np.ndarray) -> tuple[str, np.ndarray]:
    own = np.unique(label[members])
    if len(own) > 1:  # rare categories of both labels, pooled
        return name, members
    others = "negatives" if own[0] == 1 else "positives"
    return f"{name} against all {others}", np.concatenate([members, np.flatnonzero(label != own[0])])


def _groups(by: str, values: Sequence[Value]) -> Groups:
    """Sort studies into groups, in the order in which they are shown."""
    given = [place for place, value in enumerate(values) if value is not None]
    present = [values[place] for place in given]
    if all(isinstance(value, int | float | np.number) for value in present):
        unit = by.rpartition("(")[2].removesuffix(")") if by.endswith(")") else ""
        groups = _bins(np.array(present, np.float64), f" {unit}" if unit else "")
    else:
        groups = _pooled([str(value) for value in present])
    groups = {name: np.array(given)[members] for name, members in groups.items()}
    if len(given) < len(values):
        groups[NOT_GIVEN] = np.setdiff1d(np.arange(len(values)), given)
    return groups


def _bins(values: np.ndarray, unit: str) -> Groups:
    """Cut numbers at their quantiles, or not at all where there are few different ones."""
    rounded = np.array([float(_number(value)) for value in values])  # so that no two bins get the same name
    different = np.unique(rounded)
    if len(different) > MOST_BINS:
        bins = max(1, min(MOST_BINS, len(values) // FEWEST_STUDIES))
        cuts = np.quantile(rounded, np.arange(1, bins) / bins)
        place = np.searchsorted(cuts, rounded, side="left")
    else:
        place = np.searchsorted(different, rounded)
    groups: Groups = {}
    for number in np.unique(place):
        members = np.flatnonzero(place == number)
        low, high = (_number(end) for end in (rounded[members].min(), rounded[members].max()))
        groups[(low if low == high else f"{low} to {high}") + unit] = members
    return groups


def _number(value: float) -> str:
    """Write a whole number as it is, another with three digits."""
    return (
        str(round(value)) if value == round(value) else np.format_float_positional(value, 3, fractional=False, trim="-")
    )


def _pooled(values: list[str]) -> Groups:
    counts = collections.Counter(values)
    names = [value if counts[value] >= FEWEST_STUDIES else OTHER for value in values]
    order = sorted(set(names) - {OTHER}) + [OTHER] * (OTHER in names)
    return {name: np.flatnonzero(np.array(names) == name) for name in order}


def read_metadata(path: epath.PathLike, study_ids: Sequence[str]) -> dict[str, list[Value]]:
    """Read what else is known of studies: a CSV file with a column "study_id" and others, a line a study.

    Args:
      path: the file, UTF-8.
      study_ids: the studies that are judged; the file may hold others, and need not hold all.

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
                raise UserError(f"{path}: study {row['study_id']} stands twice: give every study one line")
            lines[row["study_id"]] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}): give a CSV file in UTF-8") from error
    if not lines.keys() & set(study_ids):
        raise UserError(
            f"{path}: holds none of the studies that are judged, {study_ids[0]} among them: "
            "use the ids of predictions.csv"
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


def failures(
    task: str,
    label: np.ndarray,
    probability: np.ndarray,
    threshold: thresholds.Threshold,
    study_ids: Sequence[str],
    categories: Sequence[str],
    label_names: Sequence[str],
    each: int = 5,
) -> list[dict[str, Any]]:
    """Choose the worst mistakes, those in which the reference label got the least probability.

    Args:
      task: "binary", "severity" or "classes".
      label: (study,).
      probability: (study, label).
      threshold: operating point.
      study_ids: (study,).
      categories: (study,).
      label_names: a name for each label.
      each: mistakes at most of each kind: "False negative" and "False positive", or "Wrong" of the tasks with several
        labels, of which there may be twice as many.

    Returns:
      Worst first, {"study_id", "kind", "reference" and "prediction" (names of labels), "probability" (of positive, or
      of the reference label), "category"}.
    """
    prediction = thresholds.decide(task, probability, threshold)
    of_reference = probability[np.arange(len(label)), label]
    left = dict.fromkeys(("False negative", "False positive"), each) | {"Wrong": 2 * each}
    chosen = []
    for place in map(int, np.argsort(of_reference, kind="stable")):
        if prediction[place] == label[place]:
            continue
        kind = ("False positive", "False negative")[label[place]] if task == "binary" else "Wrong"
        if left[kind] == 0:
            continue
        left[kind] -= 1
        chosen.append(
            {
                "study_id": study_ids[place],
                "kind": kind,
                "reference": label_names[label[place]],
                "prediction": label_names[prediction[place]],
                "probability": float(probability[place, 1] if task == "binary" else of_reference[place]),
                "category": categories[place],
            }
        )
    return chosen
