"""Patients: which studies are of one, and the assignment of patients with all their studies to parts or folds."""

import collections
import hashlib
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from tfds_mosmed.scans.acquisition import pseudonym

# Pseudonyms of what anonymisers, and makers of tables, write into all studies.
NOBODY = {
    pseudonym("patient", written)
    for name in (
        *map("".join, itertools.product(
            ("ANON", "ANONYM", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "ANONYMIZE", "DEIDENTIFIED", "DE-IDENTIFIED"),
            ("", " PATIENT", "_PATIENT", "PATIENT", " ID", "_ID"),
        )),
        *("0" * count for count in range(1, 17)), *("X" * count for count in range(1, 17)),
        "UNKNOWN", "NONE", "NULL", "NA", "N/A", "PATIENT", "PATIENTID", "PATIENT ID", "REMOVED", "DELETED", "NOID",
        "NO ID", "NO_ID", "-", "*", "***",
    )
    for written in (name, name.lower(), name.capitalize())
}  # fmt: skip
_ALL = "\0all"  # key of all studies, beside those of the strata
Part = TypeVar("Part", bound=Hashable)


def tell_apart(patients: Sequence[str]) -> list[str]:
    """Return pseudonyms of patients, "" for those that anonymisers give to all: the patients of such are not known."""
    told = ["" if patient in NOBODY else patient for patient in patients]
    return [""] * len(told) if len(told) > 1 and len(set(told)) == 1 else told


def group_by_patient(study_ids: Sequence[str], patients: Sequence[str]) -> list[list[int]]:
    """Return the positions of each patient's studies; a study of an unknown patient, "", is a group of its own."""
    groups: dict[tuple[str, str], list[int]] = {}
    for position, (study_id, patient) in enumerate(zip(study_ids, patients, strict=True)):
        groups.setdefault(("patient", patient) if patient else ("study", study_id), []).append(position)
    return list(groups.values())


def assign_groups(
    groups: Sequence[Sequence[int]],
    study_ids: Sequence[str],
    strata: Sequence[str],
    shares: Mapping[Part, float],
    seed: int,
) -> dict[Part, list[int]]:
    """Assign groups of studies to parts, so that shares of all studies and of each stratum are near those asked for.

    Groups come in the order of their sizes, the largest first, and of a hash of (seed, study ids). Each goes where it
    is needed most: for groups of one study that is Sainte-Laguë's method, which also seats parliaments. The last groups
    of a stratum go to the parts that have none of it, so that each part has every stratum of as many groups as parts.

    Args:
      groups: positions of the studies of each.
      study_ids: (study,), unique.
      strata: (study,).
      shares: part -> its share; they add up to 1.
      seed: of the order.

    Returns:
      Part -> positions of its studies.
    """
    counts = [collections.Counter([_ALL] * len(group) + [strata[i] for i in group]) for group in groups]
    totals = collections.Counter([_ALL] * len(strata) + [*strata])
    left = collections.Counter(stratum for count in counts for stratum in count)  # groups that hold it
    have = {part: collections.Counter() for part in shares}
    parts: dict[Part, list[int]] = {part: [] for part in shares}

    def rank(number: int) -> tuple[int, bytes]:
        ids = "\n".join(sorted(study_ids[position] for position in groups[number]))
        return -len(groups[number]), hashlib.sha256(f"{seed}\n{ids}".encode()).digest()

    def cost(part: Part, count: Mapping) -> float:
        return sum(num * (2 * have[part][key] + num) / totals[key] for key, num in count.items()) / shares[part]

    for number in sorted(range(len(groups)), key=rank):
        count = counts[number]
        candidates = list(shares)
        for stratum in sorted(count.keys() - {_ALL}, key=lambda stratum: (left[stratum], stratum)):
            lacking = [part for part in candidates if not have[part][stratum]]
            if lacking and left[stratum] <= sum(not have[part][stratum] for part in shares):
                candidates = lacking
        best = min(candidates, key=lambda part: cost(part, count))
        have[best].update(count)
        left.subtract(count.keys())
        parts[best].extend(groups[number])
    return parts
