"""Split of studies into training, validation and test parts: a pure function of study ids, strata, patients, a seed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, groupby, islice
from typing import NamedTuple

import numpy as np
from absl import logging

from covidscan.config import check_folds
from covidscan.metrics.signed_json import checksum
from tfds_mosmed.building.patients import assign_groups, group_by_patient
from tfds_mosmed.errors import UserError

PARTS = ("train", "validation", "test")

# Studies are assigned to parts by repeating these patterns, one stratum after the other. The first three studies of a
# stratum go to three parts, so even a rare category is in each; any ten (eight) in a row have the exact shares.
_HOLDOUT = ("train", "test", "validation", "train", "train", "train", "test", "train", "train", "train")
_DEVELOPMENT = ("train", "validation", "train", "train", "train", "train", "train", "train")
MOST_SHOWN = 12  # sites in a message


class Known(NamedTuple):
    """Properties of the studies besides their strata; empty, or a value for each.

    Attributes:
      patients: pseudonyms, "" of an unknown one. The studies of a patient are never in two parts.
      sites: for "leave_one_site_out", "" of an unknown one.
      splits: the part of each, for "table".
      folds: the fold of each, for "table".
    """

    patients: Sequence[str] = ()
    sites: Sequence[str] = ()
    splits: Sequence[str] = ()
    folds: Sequence[int] = ()


def _strata(
    study_ids: Sequence[str], strata: Sequence[str], positions: Sequence[int], seed: int
) -> Iterator[list[int]]:
    """Yield each stratum's positions, ordered by a hash of (seed, study id) and not by the record order."""

    def rank(position: int) -> tuple[str, bytes]:
        return strata[position], hashlib.sha256(f"{seed}\n{study_ids[position]}".encode()).digest()

    for _, members in groupby(sorted(positions, key=rank), key=lambda position: strata[position]):
        yield list(members)


def _assign_pattern(stratified: Iterator[list[int]], pattern: Sequence[str]) -> dict[str, list[int]]:
    """Assign the studies of each stratum to parts by the pattern, continuing where the previous stratum ended.

    Continuing keeps the sizes of the parts at their shares for any number of strata. A stratum shorter than the
    pattern restarts it, because other stretches of the same length may lack a part.
    """
    assigned: dict[str, list[int]] = {part: [] for part in PARTS}
    running = cycle(pattern)
    for members in stratified:
        parts = islice(running, len(members)) if len(members) >= len(pattern) else pattern
        for position, part in zip(members, parts, strict=False):
            assigned[part].append(position)
    return assigned


UNKNOWN = Known()


class _Studies(NamedTuple):
    """Ids, strata and patients of all studies, and the seed of their order."""

    ids: Sequence[str]
    strata: Sequence[str]
    patients: Sequence[str]
    seed: int

    def assign(self, positions: Sequence[int], pattern: Sequence[str]) -> dict[str, list[int]]:
        """Assign studies to parts by a pattern; by its shares, where patients have several studies."""
        groups = self.groups(positions)
        if all(len(group) == 1 for group in groups):
            return _assign_pattern(_strata(self.ids, self.strata, positions, self.seed), pattern)
        shares = {part: pattern.count(part) / len(pattern) for part in PARTS if part in pattern}
        return {part: [] for part in PARTS} | assign_groups(groups, self.ids, self.strata, shares, self.seed)

    def folds(self, num_folds: int, positions: Sequence[int]) -> list[list[int]]:
        """Deal studies to folds."""
        groups = self.groups(positions)
        if all(len(group) == 1 for group in groups):
            strata = _strata(self.ids, self.strata, positions, self.seed)
            order = [position for members in strata for position in members]
            return [order[first::num_folds] for first in range(num_folds)]
        shares = dict.fromkeys(range(num_folds), 1 / num_folds)
        return list(assign_groups(groups, self.ids, self.strata, shares, self.seed).values())

    def groups(self, positions: Sequence[int]) -> list[list[int]]:
        """Return the positions of each patient's studies among some."""
        ids, patients = ([column[position] for position in positions] for column in (self.ids, self.patients))
        return [[positions[index] for index in group] for group in group_by_patient(ids, patients)]


def check_published(protocol: str, published: Mapping[str, str] | None) -> None:
    """Raise UserError where a protocol needs a published split and the data set has none."""
    if protocol.startswith("covidnet3d") and published is None:
        raise UserError("--protocol=covidnet3d is published for the mosmed data sets: use --protocol=holdout or kfold")


def _published_parts(
    studies: _Studies, published: Mapping[str, str] | None, num_folds: int | None, fold: int
) -> dict[str, list[int]]:
    """Return the published test part; of its training part a fold, or one study in eight, is for validation."""
    check_published("covidnet3d", published)
    assert published is not None
    unknown = [study_id for study_id in studies.ids if study_id not in published]
    if unknown:
        raise UserError(
            f"--protocol=covidnet3d: {len(unknown)} studies are not in its split (first: {unknown[0]}): "
            "use --protocol=holdout or kfold"
        )
    if missing := len(published) - len(studies.ids):
        logging.warning(
            "--protocol=covidnet3d: %d of its %d studies are not in this data set; metrics are not "
            "comparable with published ones",
            missing,
            len(published),
        )
    development = [i for i, study_id in enumerate(studies.ids) if published[study_id] == "train"]
    if num_folds is None:
        parts = studies.assign(development, _DEVELOPMENT)
    else:
        folds = studies.folds(num_folds, development)
        rest = [i for number, members in enumerate(folds) if number != fold for i in members]
        parts = {"train": rest, "validation": folds[fold]}
    parts["test"] = [i for i, study_id in enumerate(studies.ids) if published[study_id] == "test"]
    return parts


def _site_parts(studies: _Studies, sites: Sequence[str], num_folds: int, fold: int) -> dict[str, list[int]]:
    """Test on a site; of its patients, the studies at other sites are in no part."""
    unknown = (
        [study_id for study_id, site in zip(studies.ids, sites, strict=True) if not site] if sites else studies.ids
    )
    if unknown:
        raise UserError(
            f"--protocol=leave_one_site_out: of {len(unknown)} of {len(studies.ids)} studies the site is not known "
            f"(first: {unknown[0]}): give a table with a column site, by --dataset=ct_table/… and --table"
        )
    names = sorted(set(sites))
    if not fold < num_folds == len(names) > 1:
        numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names[:MOST_SHOWN]))
        remedy = (
            f"give --num_folds={len(names)} and one of them as --fold" if len(names) > 1 else "it needs two or more"
        )
        raise UserError(
            f"--protocol=leave_one_site_out with --num_folds={num_folds} and --fold={fold}: the {len(names)} sites are "
            f"{numbered}{', …' * (len(names) > MOST_SHOWN)}: {remedy}"
        )
    test = [i for i, site in enumerate(sites) if site == names[fold]]
    tested = {studies.patients[i] for i in test} - {""}
    development = [i for i, site in enumerate(sites) if site != names[fold] and studies.patients[i] not in tested]
    return studies.assign(development, _DEVELOPMENT) | {"test": test}


def _table_parts(studies: _Studies, known: Known, num_folds: int, fold: int) -> dict[str, list[int]]:
    """Return the parts that a table gives; without validation studies, one in eight that train is for that."""
    if known.folds:
        numbers = sorted(set(known.folds))
        if not fold < num_folds == len(numbers) > 2:
            raise UserError(
                f"--protocol=table with --num_folds={num_folds} and --fold={fold}: the table has the folds "
                f"{', '.join(map(str, numbers))}: "
                + (f"give --num_folds={len(numbers)}" if len(numbers) > 2 else "it needs three or more")
            )
        if numbers != list(range(num_folds)):
            logging.warning("--fold=%d tests the studies of fold %d in the table", fold, numbers[fold])
        parts = _fold_parts([[i for i, its in enumerate(known.folds) if its == number] for number in numbers], fold)
    elif known.splits:
        if fold:
            raise UserError(f"--protocol=table with --fold={fold}: the table has one split: leave --fold out")
        parts = {part: [i for i, its in enumerate(known.splits) if its == part] for part in PARTS}
        if not parts["validation"]:
            parts = studies.assign(parts["train"], _DEVELOPMENT) | {"test": parts["test"]}
    else:
        raise UserError("--protocol=table needs --dataset=ct_table/… and a --table with a column split or fold")
    first: dict[str, tuple[str, int]] = {}
    for part, rows in parts.items():
        for row in rows:
            its, other = first.setdefault(studies.patients[row], (part, row)) if studies.patients[row] else (part, row)
            if its != part:
                raise UserError(
                    f"--protocol=table: studies {studies.ids[other]} ({its}) and {studies.ids[row]} ({part}) are of "
                    "one patient: put both into one part in the --table"
                )
    return parts


def _fold_parts(folds: Sequence[list[int]], fold: int) -> dict[str, list[int]]:
    validation = (fold + 1) % len(folds)
    train = [i for number, members in enumerate(folds) if number not in (fold, validation) for i in members]
    return {"train": train, "validation": folds[validation], "test": folds[fold]}


def _check(study_ids: Sequence[str], strata: Sequence[str]) -> None:
    if len(study_ids) != len(strata):
        raise ValueError(f"`strata` (={len(strata)}) must have the length of `study_ids` (={len(study_ids)}).")
    seen: set[str] = set()
    for study_id in study_ids:
        if study_id in seen:
            raise UserError(f"study {study_id} occurs twice in the data set: give every study an id of its own")
        seen.add(study_id)


def assign_parts(
    study_ids: Sequence[str],
    strata: Sequence[str],
    protocol: str,
    *,
    seed: int,
    num_folds: int,
    fold: int,
    published: Mapping[str, str] | None = None,
    known: Known = UNKNOWN,
) -> dict[str, np.ndarray]:
    """Assign each study to one of the parts "train", "validation" and "test", and each patient with all studies.

    Within a stratum studies are ordered by a hash of (seed, study id) before they are assigned to the parts, so the
    result depends neither on the order of the records nor on a pattern in the ids. In "holdout" and "covidnet3d" a
    stratum of two has one study in train and one in another part, a stratum of three or more has one in every part
    that is drawn. Where patients have several studies, see `patients.assign_groups`.

    Args:
      study_ids: (study,), unique.
      strata: (study,), such as the category, whose shares are the same in every part.
      protocol: "holdout": 70 % train, 10 % validation, 20 % test. "kfold": `fold` is the test part, the next fold the
        validation part, the others train. "covidnet3d": the published 779/331 split of MosMedData (He et al.,
        arXiv:2101.05442), with one in eight of its training studies for validation. "covidnet3d_cv": the same test
        part; its training studies are dealt to folds, of which `fold` is for validation. "leave_one_site_out": the
        sites in the order of their names are the folds; `fold` is the test part, one in eight of the others is for
        validation, and what patients of that site have at others is in no part. "table": the given split or folds.
      seed: of the assignment.
      num_folds: of "kfold" and "covidnet3d_cv", at least 3; of the other protocols that have folds, their number.
      fold: from 0 to num_folds - 1.
      published: study id -> "train" or "test", for "covidnet3d".
      known: patients, sites, and given parts.

    Returns:
      Part -> positions in `study_ids`, sorted.

    Raises:
      UserError: the protocol is unknown, a fold is out of range, there is no published split, an id occurs twice, or a
        part would be empty.
    """
    _check(study_ids, strata)
    check_folds(protocol, num_folds, fold)
    studies = _Studies(study_ids, strata, known.patients or [""] * len(study_ids), seed)
    if protocol == "holdout":
        parts = studies.assign(range(len(study_ids)), _HOLDOUT)
    elif protocol == "kfold":
        parts = _fold_parts(studies.folds(num_folds, range(len(study_ids))), fold)
    elif protocol in ("covidnet3d", "covidnet3d_cv"):
        parts = _published_parts(studies, published, None if protocol == "covidnet3d" else num_folds, fold)
    elif protocol == "leave_one_site_out":
        parts = _site_parts(studies, known.sites, num_folds, fold)
    elif protocol == "table":
        parts = _table_parts(studies, known, num_folds, fold)
    else:
        raise UserError(
            f"--protocol={protocol} is unknown: use holdout, kfold, leave_one_site_out, table, covidnet3d or "
            "covidnet3d_cv"
        )
    for part in PARTS:
        if not parts[part]:
            remedy = " or lower --num_folds" if protocol == "kfold" else ""
            raise UserError(
                f"--protocol={protocol} leaves none of {len(study_ids)} studies to {part}: add studies{remedy}"
            )
    return {part: np.sort(np.asarray(parts[part], np.int64)) for part in PARTS}


def split_hash(parts: Mapping[str, np.ndarray], study_ids: Sequence[str]) -> str:
    """Return the SHA-256, in hex, of each part's sorted study ids, which identifies the split."""
    members = {part: sorted(study_ids[i] for i in map(int, rows)) for part, rows in parts.items()}
    return checksum(members)


def check_labels(
    parts: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str], protocol: str, num_folds: int
) -> None:
    """Check that training sees two labels or more, and that each part has every label.

    Args:
      parts: of `assign_parts`.
      labels: (study,), of all studies.
      names: a name for each label.
      protocol: by which the studies were split.
      num_folds: of "kfold".

    Raises:
      UserError: a label has too few studies; the message says how many are needed.
    """
    counts = np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if protocol == "kfold" and 0 < count < num_folds:
            raise UserError(
                f"--num_folds={num_folds} needs {num_folds} studies of each label or more, one for each fold; there "
                f"are {count} of {name}: add studies{' or lower --num_folds' if count >= 3 else ''}"
            )
    listed = ", ".join(f"{count} of {name}" for name, count in zip(names, counts.tolist(), strict=True))
    if len(np.unique(labels[parts["train"]])) < 2:
        raise UserError(
            f"--protocol={protocol}: the training studies are all of one label (all studies: {listed}): training needs "
            "two labels; give at least 3 studies of each"
        )
    for part, rows in parts.items():
        present = {*labels[rows].tolist()}
        lacking = [name for label, name in enumerate(names) if counts[label] and label not in present]
        if lacking:
            few = "give at least 3 studies of each, of 3 patients and of 3 for each category that a label joins"
            remedy = {"leave_one_site_out": "give that site and another one the same name in the table"}
            raise UserError(
                f"--protocol={protocol}: no study for {part} is of {' or '.join(lacking)} (all studies: {listed}), and "
                f"each part needs every label; {remedy.get(protocol, few)}"
            )


def check_sets(parts: Mapping[str, np.ndarray], values: np.ndarray, names: Sequence[str], protocol: str) -> None:
    """Check that each part has studies with and without each label of "multilabel".

    Args:
      parts: of `assign_parts`.
      values: (study, label), of all studies, 0 or 1.
      names: a name for each label.
      protocol: by which the studies were split.

    Raises:
      UserError: a label has too few studies; the message says how many are needed.
    """
    for part, rows in parts.items():
        for name, all_studies, column in zip(names, values.T, values[rows].T, strict=True):
            if not 0 < column.sum() < len(column):
                raise UserError(
                    f"--protocol={protocol}: {column.sum()} of {len(column)} studies for {part} have the label {name} "
                    f"({all_studies.sum()} of all {len(all_studies)}), and each part needs some with it and some "
                    "without: give at least 3 of each, of 3 patients, better 10; or leave that label out"
                )


# Standard deviation of the labels of regression; the third is its share of their mean.
LEAST_DEVIATION, LARGEST_DEVIATION, LEAST_SHARE = 1e-3, 1e12, 1e-4


def check_values(parts: Mapping[str, np.ndarray], values: np.ndarray, protocol: str) -> None:
    """Check that the numbers that train and choose a network differ, by what networks and reports can tell.

    Args:
      parts: of `assign_parts`.
      values: (study,), of all studies.
      protocol: by which the studies were split.

    Raises:
      UserError: all of a part are the same, where one is enough to test; or they differ by too little or too much.
    """
    for part in ("train", "validation"):
        if len(np.unique(values[parts[part]])) < 2:
            count = len(parts[part])
            raise UserError(
                f"--protocol={protocol}: the labels of the {count} studies for {part} are all the same number, and "
                "--task=regression needs different ones: add studies, 20 or more"
            )
    with np.errstate(over="ignore"):
        mean, deviation = (float(of(values[parts["train"]])) for of in (np.mean, np.std))
    reason = ""
    if not deviation < LARGEST_DEVIATION:
        reason = "which is too much for float32"
    elif deviation < LEAST_DEVIATION:
        reason = "of which reports with three decimals would show little"
    elif deviation < LEAST_SHARE * abs(mean):
        reason = "which float32 hardly tells beside their size"
    if reason:
        raise UserError(
            f"--task=regression: the labels of the training studies have a mean of {mean:.4g} and a standard deviation "
            f"of {deviation:.3g}, {reason}: give them in another unit, or less a constant"
        )
