"""Summary of a cohort: the same when it is inspected, when its records are built, and in a report."""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfds_mosmed.building.index import StudyIndex, group_warnings
from tfds_mosmed.building.shortcuts import MIN_STUDIES, Shortcut, comparable_classes, find_shortcuts
from tfds_mosmed.errors import one_line

NOT_STATED = "not stated"
NO_CLASS = "all"  # where the classes are not known
MOST_CLASSES = 20  # named; more are numbers, or names of something else
MOST_VALUES = 12  # of a property that are named
OTHERS = "others"


@dataclasses.dataclass(frozen=True)
class TextProperty:
    """Property whose values are texts.

    Attributes:
      name: the property.
      counts: value -> class -> studies, the most frequent value first.
    """

    name: str
    counts: dict[str, dict[str, int]]


@dataclasses.dataclass(frozen=True)
class NumberProperty:
    """Property whose values are numbers.

    Attributes:
      name: the property, with its unit.
      ranges: class -> lowest, median and highest value.
    """

    name: str
    ranges: dict[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Count:
    """Studies with one warning, or with one reason for which they cannot be used.

    Attributes:
      text: the warning or the reason, of the first study if they differ in their numbers; without names.
      count: studies.
    """

    text: str
    count: int


@dataclasses.dataclass(frozen=True)
class CohortSummary:
    """Summary of the studies of a cohort, without names of studies, patients or sites.

    Attributes:
      num_studies: that can be used.
      classes: class -> studies; "all" where the classes are not known.
      num_patients: of whom they are; None where that is not known of all of them.
      num_sites: likewise.
      texts: properties whose values are texts.
      numbers: properties whose values are numbers.
      unusable: why studies cannot be used, the most frequent reason first.
      shortcuts: properties by which the classes can be told apart.
      left_out: number of files that are not read although they may hold studies, by kind.
      warnings: about the studies, the most frequent first.
      not_compared: why shortcuts were not looked for; "" if they were.
    """

    num_studies: int
    classes: dict[str, int]
    num_patients: int | None
    num_sites: int | None
    texts: list[TextProperty]
    numbers: list[NumberProperty]
    unusable: list[Count]
    shortcuts: list[Shortcut]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: list[Count] = dataclasses.field(default_factory=list)
    not_compared: str = ""


def summarize(
    index: StudyIndex,
    skipped: Sequence[tuple[str, str]],
    left_out: Mapping[str, int],
    patients: Sequence[str] | None = None,
) -> CohortSummary:
    """Summarize a cohort.

    Args:
      index: of the studies that can be used; their category is "" where it is not known.
      skipped: (study id, reason) of the others.
      left_out: see `CohortSummary`.
      patients: of the studies, "" where unknown; by default those of the index.
    """
    acquired = [index.acquisition.get(study_id) for study_id in index.study_id]

    def column(name: str) -> list[str]:
        return [getattr(one, name) if one else "" for one in acquired]

    classes = classes_of(index.category)
    patients, sites = index.patients() if patients is None else patients, index.sites()
    fields = {"file format": "file_format", "scanner": "scanner", "kernel": "kernel", "contrast agent": "contrast"}
    values = {name: column(field) for name, field in fields.items()} | {"site": _numbered(sites)}
    gaps_mm, pixels_mm = index.source_spacing_mm[:, 0], index.source_spacing_mm[:, 1:].max(axis=1)
    numbers = {
        "slices": index.num_slices.astype(float),
        "slice spacing (mm)": gaps_mm,
        "pixel spacing (mm)": pixels_mm,
        "length (mm)": index.num_slices * gaps_mm,
    }
    first = _first_of_each(classes, patients)
    compared = comparable_classes([classes[row] for row in first])
    return CohortSummary(
        num_studies=len(index),
        classes=_sorted_counts(classes),
        num_patients=_num_different(patients),
        num_sites=_num_different(sites),
        texts=[TextProperty(name, _count(classes, texts)) for name, texts in values.items()],
        numbers=[NumberProperty(name, dict(_ranges(classes, each))) for name, each in numbers.items()],
        unusable=_count_reasons(skipped),
        left_out=dict(left_out),
        warnings=[Count(kind.text, len(kind.study_ids)) for kind in group_warnings(index.warnings)],
        shortcuts=find_shortcuts(
            [classes[row] for row in first],
            {name: [texts[row] for row in first] for name, texts in values.items()},
            {name: [float(each[row]) for row in first] for name, each in numbers.items()},
        ),
        not_compared="" if compared else _why_not_compared(classes),
    )


def classes_of(labels: Sequence[str]) -> list[str]:
    """Return the classes by which studies are counted: of labels that are many numbers, those below their median."""
    if len(set(labels)) <= MOST_CLASSES or not all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", one) for one in labels):
        return [one_line(label) or NO_CLASS for label in labels]
    numbers = np.array(labels, np.float64)
    median = float(np.median(numbers))
    return [f"up to {median:g}" if number <= median else f"above {median:g}" for number in numbers]


def _first_of_each(classes: Sequence[str], patients: Sequence[str]) -> list[int]:
    """Return the first study of each patient in a class; each study is of another one where patients are not known."""
    first: dict[tuple[str, str], int] = {}
    for row, (one, patient) in enumerate(zip(classes, patients, strict=True)):
        first.setdefault((one, patient or f"\0{row}"), row)
    return sorted(first.values())


def _sorted_counts(classes: Sequence[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(classes).items()))


def _num_different(names: Sequence[str]) -> int | None:
    return len(set(names)) if names and all(names) else None


def _numbered(names: Sequence[str]) -> list[str]:
    """Return numbers for names, the most frequent first: "1", "2" …; "" stays."""
    order = [name for name, _ in collections.Counter(filter(None, names)).most_common()]
    numbers = {name: str(number) for number, name in enumerate(order, 1)}
    return [numbers.get(name, "") for name in names]


def _count(classes: Sequence[str], values: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the studies of each class with a value; rare values of many are counted together."""
    values = [one_line(value) or NOT_STATED for value in values]
    common = [value for value, _ in collections.Counter(values).most_common()]
    named = common if len(common) <= MOST_VALUES else common[: MOST_VALUES - 1]
    found: dict[str, dict[str, int]] = {value: {} for value in named}
    for one, value in zip(classes, values, strict=True):
        counts = found.setdefault(value if value in named else OTHERS, {})
        counts[one] = counts.get(one, 0) + 1
    return found


def _ranges(classes: Sequence[str], values: np.ndarray) -> Iterator[tuple[str, tuple[float, float, float]]]:
    for one in sorted(set(classes)):
        own = values[[other == one for other in classes]]
        yield one, (round(float(own.min()), 4), round(float(np.median(own)), 4), round(float(own.max()), 4))


def _count_reasons(skipped: Sequence[tuple[str, str]]) -> list[Count]:
    reasons = {study_id: [without_path(study_id, reason)] for study_id, reason in skipped}
    return [Count(kind.text, len(kind.study_ids)) for kind in group_warnings(reasons)]


def without_path(study_id: str, reason: str) -> str:
    """Return why a study cannot be used without the path of its file, which may identify a patient."""
    _, named, rest = reason.partition(study_id)
    return rest.partition(": ")[2] or rest if named else reason


def _why_not_compared(classes: Sequence[str]) -> str:
    if set(classes) <= {NO_CLASS}:
        return "the classes are not known"
    if len(set(classes)) == 1:
        return "there is one class only"
    return f"fewer than two classes have {MIN_STUDIES} studies of different patients"
