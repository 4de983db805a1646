"""Properties of the acquisition that differ between classes: a network may learn them in place of the disease."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

MIN_STUDIES = 5  # of a class, and of another patient each; smaller classes are not compared
MIN_AUROC = 0.75
MIN_CRAMERS_V = 0.5
MAX_P_VALUE = 0.01  # after Holm's correction for the number of properties
PERMUTATIONS = 4999
NUMBERS_A_CHUNK = 2**21  # of permutations that are held at a time
AUROC, CRAMERS_V = "AUROC", "Cramér's V"


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """Property by which the classes can be told apart.

    Attributes:
      name: of the property.
      measure: "AUROC" of its values for one class against the others, the largest over the classes, 0.5 to 1; or
        "Cramér's V" of its values and the classes, with the correction for bias of Bergsma (2013), 0 to 1.
      value: of the measure.
      p_value: of a permutation test that the property does not depend on the class, after Holm's correction.
      num_studies: compared, one of each patient.
      description: which class differs, and how.
    """

    name: str
    measure: str
    value: float
    p_value: float
    num_studies: int
    description: str

    def __str__(self) -> str:
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{self.name}: {self.description} ({self.measure} {self.value:.2f}, {p}, {self.num_studies} studies)"


def comparable_classes(classes: Sequence[str]) -> list[str]:
    """Return the classes with enough studies to be compared, sorted; none if there are fewer than two."""
    counts = collections.Counter(classes)
    found = sorted(name for name, count in counts.items() if name and count >= MIN_STUDIES)
    return found if len(found) > 1 else []


def find_shortcuts(
    classes: Sequence[str], texts: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[float]]
) -> list[Shortcut]:
    """Find the properties that differ much between the classes, and by more than chance.

    Args:
      classes: of the studies, of different patients.
      texts: property -> a text of each study, "" where it is not known.
      numbers: property -> a number of each study, NaN where it is not known.

    Returns:
      The properties whose measure reaches `MIN_AUROC` or `MIN_CRAMERS_V`, with a p-value of at most `MAX_P_VALUE`.
      Classes of fewer than `MIN_STUDIES` studies of which the property is known are left out.
    """
    tested = [_compare(name, classes, np.array(values, object), AUROC) for name, values in numbers.items()]
    tested += [_compare(name, classes, np.array(values, object), CRAMERS_V) for name, values in texts.items()]
    found = [one for one in tested if one]
    largest, corrected = 0.0, []
    for rank, one in enumerate(sorted(found, key=lambda one: one.p_value)):
        largest = max(largest, min(1.0, one.p_value * (len(found) - rank)))
        corrected.append(dataclasses.replace(one, p_value=largest))
    least = {AUROC: MIN_AUROC, CRAMERS_V: MIN_CRAMERS_V}
    return [one for one in corrected if one.value >= least[one.measure] and one.p_value <= MAX_P_VALUE]


def _compare(name: str, classes: Sequence[str], values: np.ndarray, measure: str) -> Shortcut | None:
    """Compare the classes in a property; None if too few studies have it, or if it is the same in all."""
    is_known = np.array([value not in ("", None) and value == value for value in values], bool)
    compared = comparable_classes([one for one, known in zip(classes, is_known, strict=True) if known])
    members = np.flatnonzero([known and one in compared for one, known in zip(classes, is_known, strict=True)]).tolist()
    values = values[members]
    if not compared or len(set(values)) < 2:
        return None
    is_in = np.array([[classes[member] == one for one in compared] for member in members], np.float64)
    if measure == AUROC:
        ranks = stats.rankdata(values.astype(np.float64))
        statistic: Callable[[np.ndarray], np.ndarray] = lambda order: _largest_auroc(ranks[order], is_in)  # noqa: E731
        describe = _describe_numbers
    else:
        kinds, kind = np.unique(values.astype(str), return_inverse=True)
        has_kind = np.eye(len(kinds))[kind]
        statistic = lambda order: _cramers_v(has_kind[order], is_in)  # noqa: E731
        describe = _describe_texts
    seen = float(statistic(np.arange(len(values))[None])[0])
    rng, num_reached = np.random.default_rng(0), 0
    chunk = max(1, NUMBERS_A_CHUNK // (len(values) * (1 if measure == AUROC else has_kind.shape[1])))
    for start in range(0, PERMUTATIONS, chunk):
        count = min(chunk, PERMUTATIONS - start)
        order = rng.permuted(np.tile(np.arange(len(values)), (count, 1)), axis=1)
        num_reached += int((statistic(order) >= seen - 1e-9).sum())
    return Shortcut(
        name, measure, seen, (num_reached + 1) / (PERMUTATIONS + 1), len(values), describe(values, is_in > 0, compared)
    )


def _largest_auroc(ranks: np.ndarray, is_in: np.ndarray) -> np.ndarray:
    """Compute the largest AUROC of a class against the others, in either direction: (permutation,).

    Args:
      ranks: (permutation, study), ties have their mean.
      is_in: (study, class) 0 or 1.
    """
    count = is_in.sum(axis=0)
    area = (ranks @ is_in - count * (count + 1) / 2) / (count * (len(is_in) - count))
    return 0.5 + np.abs(area - 0.5).max(axis=1)


def _cramers_v(has_kind: np.ndarray, is_in: np.ndarray) -> np.ndarray:
    """Compute Cramér's V, corrected for bias: (permutation,).

    Args:
      has_kind: (permutation, study, kind) 0 or 1.
      is_in: (study, class) 0 or 1.
    """
    num, num_kinds, num_classes = len(is_in), has_kind.shape[2], is_in.shape[1]
    table = has_kind.transpose(0, 2, 1) @ is_in
    expected = table.sum(axis=2, keepdims=True) * table.sum(axis=1, keepdims=True) / num
    phi2 = ((table - expected) ** 2 / expected).sum(axis=(1, 2)) / num
    corrected = np.maximum(0, phi2 - (num_kinds - 1) * (num_classes - 1) / (num - 1))
    sizes = [count - (count - 1) ** 2 / (num - 1) for count in (num_kinds, num_classes)]
    return np.sqrt(corrected / max(min(sizes) - 1, 1e-9)).clip(max=1)


def _describe_numbers(values: np.ndarray, is_in: np.ndarray, classes: Sequence[str]) -> str:
    numbers = values.astype(np.float64)
    differences = [
        stats.mannwhitneyu(numbers[column], numbers[~column]).statistic / (column.sum() * (~column).sum()) - 0.5
        for column in is_in.T
    ]
    most = int(np.argmax(np.abs(differences)))
    here, there = (np.median(numbers[members]) for members in (is_in[:, most], ~is_in[:, most]))
    others = classes[1 - most] if len(classes) == 2 else "the others"
    return f"{classes[most]} has a median of {here:.4g}, {others} one of {there:.4g}"


def _describe_texts(values: np.ndarray, is_in: np.ndarray, classes: Sequence[str]) -> str:
    """Describe the value and the two classes whose shares differ most."""
    best = (-1.0, "")
    for value in sorted(set(values)):
        has = values == value
        shares = [has[column].mean() for column in is_in.T]
        high, low = int(np.argmax(shares)), int(np.argmin(shares))
        counts = " and ".join(
            f"{has[is_in[:, one]].sum()} of {is_in[:, one].sum()} studies of {classes[one]}" for one in (high, low)
        )
        best = max(best, (shares[high] - shares[low], f"“{value}” is that of {counts}"), key=lambda pair: pair[0])
    return best[1]
