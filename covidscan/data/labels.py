"""Labels of a task, from the categories of studies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfds_mosmed.errors import UserError

TASKS = ("binary", "severity", "classes")
SEVERITY = {
    "CT-0": 0,
    "CT-1": 1,
    "CT-2": 2,
    "CT-3": 3,
    "CT-4": 3,
}  # CT-4 has two studies: it never stands alone


class Labels(NamedTuple):
    """The labels of a data set's studies.

    Attributes:
      values: (study,), int32.
      names: a name for each label.
    """

    values: np.ndarray
    names: tuple[str, ...]


def labels(task: str, categories: Sequence[str], negative: Sequence[str], names: Sequence[str] | None = None) -> Labels:
    """Turn the categories of studies into labels.

    Args:
      task: one of `TASKS`.
      categories: the category of each study.
      negative: the categories that are label 0 of the binary task, whatever their case.
      names: the names that the model was trained with; None when it is to be trained on these studies, which then must
        be of more than one label.

    Returns:
      The labels with their names.

    Raises:
      UserError: the categories do not fit the task.
    """
    present = sorted(set(categories))
    if task == "binary":
        negatives = {name.lower() for name in negative}
        values = [int(category.lower() not in negatives) for category in categories]
        if min(values) == max(values) and names is None:
            kind = "positive" if values[0] else "negative"
            raise UserError(
                f"--negative_categories={','.join(negative)} makes every study {kind} (categories here: "
                f"{', '.join(present)}): name the category that means no disease, or use --task=classes"
            )
        return Labels(np.asarray(values, np.int32), ("negative", "positive"))
    if task == "severity":
        unknown = [category for category in present if category not in SEVERITY]
        if unknown:
            raise UserError(
                f"--task=severity knows CT-0 to CT-4, the data set has {', '.join(unknown)}: use --task=classes"
            )
        return Labels(np.asarray([SEVERITY[c] for c in categories], np.int32), ("CT-0", "CT-1", "CT-2", "CT-3+4"))
    known = tuple(names or present)
    unknown = [category for category in present if category not in known]
    if unknown:
        raise UserError(
            f"--task=classes was trained on {', '.join(known)}; the data set has {', '.join(unknown)}: rename them"
        )
    return Labels(np.asarray([known.index(c) for c in categories], np.int32), known)
