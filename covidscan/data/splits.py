"""Split of studies into training, validation and test parts: a pure function of study ids, strata and a seed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, groupby, islice

import numpy as np
from absl import logging

from covidscan.metrics.signed_json import checksum
from tfds_mosmed.errors import UserError

PARTS = ("train", "validation", "test")

# Studies are assigned to parts by repeating these patterns, one stratum after the other. The first three studies of a
# stratum go to three parts, so even a rare category is in each; any ten (eight) in a row have the exact shares.
_HOLDOUT = ("train", "test", "validation", "train", "train", "train", "test", "train", "train", "train")
_PUBLISHED_TRAIN = ("train", "validation", "train", "train", "train", "train", "train", "train")


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


def _published_parts(
    study_ids: Sequence[str], strata: Sequence[str], seed: int, published: Mapping[str, str] | None
) -> dict[str, list[int]]:
    if published is None:
        raise UserError("--protocol=covidnet3d is published for the mosmed data sets: use --protocol=holdout or kfold")
    unknown = [study_id for study_id in study_ids if study_id not in published]
    if unknown:
        raise UserError(
            f"--protocol=covidnet3d: {len(unknown)} studies are not in its split (first: {unknown[0]}): "
            "use --protocol=holdout or kfold"
        )
    if missing := len(published) - len(study_ids):
        logging.warning(
            "--protocol=covidnet3d: %d of its %d studies are not in this data set; metrics are not "
            "comparable with published ones",
            missing,
            len(published),
        )
    development = [i for i, study_id in enumerate(study_ids) if published[study_id] == "train"]
    parts = _assign_pattern(_strata(study_ids, strata, development, seed), _PUBLISHED_TRAIN)
    parts["test"] = [i for i, study_id in enumerate(study_ids) if published[study_id] == "test"]
    return parts


def _check(study_ids: Sequence[str], strata: Sequence[str], protocol: str, num_folds: int, fold: int) -> None:
    if len(study_ids) != len(strata):
        raise ValueError(f"`strata` (={len(strata)}) must have the length of `study_ids` (={len(study_ids)}).")
    seen: set[str] = set()
    for study_id in study_ids:
        if study_id in seen:
            raise UserError(f"study {study_id} occurs twice in the data set: give every study an id of its own")
        seen.add(study_id)
    if protocol == "kfold":
        if num_folds < 3:
            raise UserError(
                f"--num_folds={num_folds} must be at least 3: one to test, one to validate, the others to train"
            )
        if not 0 <= fold < num_folds:
            raise UserError(f"--fold={fold} must be from 0 to {num_folds - 1} with --num_folds={num_folds}")


def assign_parts(
    study_ids: Sequence[str],
    strata: Sequence[str],
    protocol: str,
    *,
    seed: int,
    num_folds: int,
    fold: int,
    published: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Assign each study to exactly one of the parts "train", "validation" and "test".

    Within a stratum studies are ordered by a hash of (seed, study id) before they are assigned to the parts, so the
    result depends neither on the order of the records nor on a pattern in the ids. In "holdout" and "covidnet3d" a
    stratum of two has one study in train and one in another part, a stratum of three or more has one in every part
    that is drawn.

    Args:
      study_ids: (study,), unique.
      strata: (study,), the category, whose shares are the same in every part.
      protocol: "holdout": 70 % train, 10 % validation, 20 % test. "kfold": `fold` is the test part, the next fold the
        validation part, the others train. "covidnet3d": the published 779/331 split of MosMedData (He et al.,
        arXiv:2101.05442), with one in eight of its training studies for validation.
      seed: of the assignment.
      num_folds: of "kfold", at least 3.
      fold: of "kfold", from 0 to num_folds - 1.
      published: study id -> "train" or "test", for "covidnet3d".

    Returns:
      Part -> positions in `study_ids`, sorted.

    Raises:
      UserError: the protocol is unknown, a fold is out of range, there is no published split, an id occurs twice, or a
        part would be empty.
    """
    _check(study_ids, strata, protocol, num_folds, fold)
    strata_positions = _strata(study_ids, strata, range(len(study_ids)), seed)
    if protocol == "holdout":
        parts = _assign_pattern(strata_positions, _HOLDOUT)
    elif protocol == "kfold":
        order = [position for members in strata_positions for position in members]
        folds = [order[first::num_folds] for first in range(num_folds)]
        validation = (fold + 1) % num_folds
        train = [i for number, members in enumerate(folds) if number not in (fold, validation) for i in members]
        parts = {"train": train, "validation": folds[validation], "test": folds[fold]}
    elif protocol == "covidnet3d":
        parts = _published_parts(study_ids, strata, seed, published)
    else:
        raise UserError(f"--protocol={protocol} is unknown: use holdout, kfold or covidnet3d")
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
    """Check that training sees two labels or more, and that every fold of "kfold" can hold each label.

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
        if protocol == "kfold" and count < num_folds:
            raise UserError(
                f"--num_folds={num_folds} needs {num_folds} studies of each label or more, one for each fold; there "
                f"are {count} of {name}: add studies{' or lower --num_folds' if count >= 3 else ''}"
            )
    if len(np.unique(labels[parts["train"]])) < 2:
        listed = ", ".join(f"{count} of {name}" for name, count in zip(names, counts.tolist(), strict=True))
        raise UserError(
            f"--protocol={protocol}: the training studies are all of one label (all studies: {listed}): training needs "
            "two labels; give at least 3 studies of each"
        )
