"""Labels of a task, derived from the categories of studies."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from covidscan.metrics.predictions import NONE, SEVERAL, VALUE
from tfds_mosmed.errors import UserError

TASKS = ("binary", "severity", "classes", "multilabel", "regression")
STUDIES_A_BIN, MOST_BINS = 10, 10  # of numbers, for splits
SEVERITY = {
    "CT-0": 0,
    "CT-1": 1,
    "CT-2": 2,
    "CT-3": 3,
    "CT-4": 3,
}  # MosMedData has only two CT-4 studies, so CT-3 and CT-4 are one label


class Labels(NamedTuple):
    """The labels of a data set's studies.

    Attributes:
      values: (study,), int32; of "multilabel" (study, label), 0 or 1; of "regression" (study,) float64.
      names: a name for each label; of "regression" that of the value.
    """

    values: np.ndarray
    names: tuple[str, ...]

    @property
    def is_number(self) -> bool:
        """Return whether labels are numbers, of "regression"."""
        return self.values.dtype.kind == "f"

    @property
    def is_set(self) -> bool:
        """Return whether a study has any number of labels, of "multilabel"."""
        return self.values.ndim == 2


def is_negative(categories: Sequence[str], negative: Sequence[str]) -> np.ndarray:
    """Return which categories mean no disease, (study,) bool; upper and lower case are equal."""
    names = {name.lower() for name in negative}
    return np.asarray([category.lower() in names for category in categories], bool)


def assign_labels(
    task: str, categories: Sequence[str], negative: Sequence[str], names: Sequence[str] | None = None
) -> Labels:
    """Map the categories of studies to labels.

    Args:
      task: one of `TASKS`.
      categories: the category of each study.
      negative: the categories that are label 0 of the binary task; upper and lower case are equal.
      names: label names of the trained model; None before training on these studies, which then must have more than
        one label.

    Raises:
      UserError: the categories do not fit the task.
    """
    present = sorted(set(categories))
    if task == "binary":
        values = (~is_negative(categories, negative)).astype(int).tolist()
        if min(values) == max(values) and names is None:
            kind = "positive" if values[0] else "negative"
            raise UserError(
                f"--negative_categories={','.join(negative)} makes every study {kind} (categories here: "
                f"{', '.join(present)}): set it to the category that means no disease, or use --task=classes"
            )
        return Labels(np.asarray(values, np.int32), ("negative", "positive"))
    if task == "severity":
        unknown = [category for category in present if category not in SEVERITY]
        if unknown:
            raise UserError(
                f"--task=severity needs the categories CT-0 to CT-4, the data set has {', '.join(unknown)}: "
                "use --task=classes"
            )
        return Labels(np.asarray([SEVERITY[c] for c in categories], np.int32), ("CT-0", "CT-1", "CT-2", "CT-3+4"))
    if task == "regression":
        return Labels(np.asarray([_number(category) for category in categories], np.float64), (VALUE,))
    if task == "multilabel":
        return _sets(categories, negative, names)
    known = tuple(names or present)
    several = next((category for category in present if SEVERAL in category), None)
    if several:
        raise UserError(f"--task=classes is of one label a study, the data set has {several!a}: use --task=multilabel")
    unknown = [category for category in present if category not in known]
    if unknown:
        raise UserError(
            f"--task=classes was trained on {', '.join(known)}; the data set has {', '.join(unknown)}: rename them"
        )
    return Labels(np.asarray([known.index(c) for c in categories], np.int32), known)


def _sets(categories: Sequence[str], negative: Sequence[str], names: Sequence[str] | None) -> Labels:
    """Map categories that are names with "|" between them; those without disease are the empty set."""
    without = {name.lower() for name in (*negative, NONE, "")}
    sets = [{name for name in category.split(SEVERAL) if name.lower() not in without} for category in categories]
    present = sorted(set().union(*sets))
    known = tuple(names or present)
    unknown = [name for name in present if name not in known]
    if unknown:
        raise UserError(
            f"--task=multilabel was trained on {', '.join(known)}; the data set has {', '.join(unknown)}: rename them"
        )
    if len(known) < 2:
        raise UserError(
            f"--task=multilabel needs two labels or more, the data set has {', '.join(known) or 'none'} (several of a "
            f"study are written with {SEVERAL} between them): use --task=binary"
        )
    return Labels(np.asarray([[name in one for name in known] for one in sets], np.int32), known)


def rarest(values: np.ndarray) -> np.ndarray:
    """Return the rarest label of each study, (study,) int32, -1 of none, from those of "multilabel" (study, label)."""
    counts = values.sum(axis=0)
    of_study = np.where(values > 0, counts, np.iinfo(counts.dtype).max)
    return np.where(values.any(axis=1), of_study.argmin(axis=1), -1).astype(np.int32)


def _number(category: str) -> float:
    try:
        number = float(category)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"--task=regression needs numbers as labels, the data set has {category!a}: use --task=classes, or write a "
            "number into the column label of the --table"
        )
    return number


def strata(task: str, categories: Sequence[str], values: np.ndarray) -> list[str]:
    """Return the stratum of each study, whose shares are to be the same in every part of a split.

    Args:
      task: one of `TASKS`.
      categories: of the studies: the strata, but of the tasks below.
      values: the labels. Of "regression", bins of like size of these are the strata; of "multilabel" the sets of
        labels, and those of few studies by their rarest label.
    """
    if task == "multilabel":
        sets = ["|".join(map(str, np.flatnonzero(row))) for row in values]
        counts = Counter(sets)
        return [
            one if counts[one] >= STUDIES_A_BIN else f"rare {label}"
            for one, label in zip(sets, rarest(values).tolist(), strict=True)
        ]
    if task != "regression":
        return list(categories)
    bins = max(1, min(MOST_BINS, len(values) // STUDIES_A_BIN))
    below = np.searchsorted(np.sort(values), values)  # equal labels are in one bin
    return [f"{number:02d}" for number in below * bins // len(values)]
