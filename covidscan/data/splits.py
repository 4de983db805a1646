"""Which studies train, choose and judge: a pure function of study ids, strata and a seed."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, groupby, islice

import numpy as np
from absl import logging

from tfds_mosmed.errors import UserError

PARTS = ("train", "validation", "test")

# Parts are dealt like cards, each stratum in turn. Its first three studies go to three parts, so that even a
# rare category trains and is judged; any ten (eight) in a row hold the protocol's shares exactly.
_HOLDOUT = ("train", "test", "validation", "train", "train", "train", "test", "train", "train", "train")
_PUBLISHED_TRAIN = ("train", "validation", "train", "train", "train", "train", "train", "train")


def _strata(
    study_ids: Sequence[str], strata: Sequence[str], positions: Sequence[int], seed: int
) -> Iterator[list[int]]:
    """Yield each stratum's positions, ordered by a hash of (seed, study id) whatever the record order."""

    def rank(position: int) -> tuple[str, bytes]:
        return strata[position], hashlib.sha256(f"{seed}\n{study_ids[position]}".encode()).digest()

    for _, members in groupby(sorted(positions, key=rank), key=lambda position: strata[position]):
        yield list(members)


def _deal(stratified: Iterator[list[int]], pattern: Sequence[str]) -> dict[str, list[int]]:
    """Deal each stratum by the pattern, going on where the stratum before it stopped.

    Going on keeps the parts' sizes to their shares however many strata there are. A stratum too short for a
    whole pattern starts it anew, because a later stretch of it may lack a part.
    """
    dealt: dict[str, list[int]] = {part: [] for part in PARTS}
    running = cycle(pattern)
    for members in stratified:
        parts = islice(running, len(members)) if len(members) >= len(pattern) else pattern
        for position, part in zip(members, parts, strict=False):
            dealt[part].append(position)
    return dealt


def _deal_folds(stratified: Iterator[list[int]], num_folds: int) -> list[list[int]]:
    order = [position for members in stratified for position in members]
    return [order[fold::num_folds] for fold in range(num_folds)]


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
            "--protocol=covidnet3d: %d of its %d studies are not in this data set; figures cannot be "
            "compared with published ones",
            missing,
            len(published),
        )
    learning = [i for i, study_id in enumerate(study_ids) if published[study_id] == "train"]
    parts = _deal(_strata(study_ids, strata, learning, seed), _PUBLISHED_TRAIN)
    parts["test"] = [i for i, study_id in enumerate(study_ids) if published[study_id] == "test"]
    return parts


def _check(study_ids: Sequence[str], strata: Sequence[str], protocol: str, num_folds: int, fold: int) -> None:
    if len(study_ids) != len(strata):
        raise ValueError(f"`strata` (={len(strata)}) must be as many as `study_ids` (={len(study_ids)}).")
    seen: set[str] = set()
    for study_id in study_ids:
        if study_id in seen:
            raise UserError(f"study {study_id} stands twice in the data set: give every study its own id")
        seen.add(study_id)
    if protocol == "kfold":
        if num_folds < 3:
            raise UserError(f"--num_folds={num_folds}: give 3 or more (one tests, one validates, the others train)")
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

    Within a stratum studies are ordered by a hash of (seed, study id), then dealt to the parts, so the result
    depends neither on the order of the records nor on what an id looks like. In "holdout" and "covidnet3d" a
    stratum of two gives train and one other part a study each, one of three or more every part that is dealt.

    Args:
      study_ids: (study,), unique.
      strata: (study,), what every part should hold in like shares: the category.
      protocol: "holdout": 70 % train, 10 % validation, 20 % test. "kfold": `fold` tests, the next one
        validates, the others train. "covidnet3d": the published 779/331 split of MosMedData (He et al.,
        arXiv:2101.05442), with one in eight of its training studies for validation.
      seed: draws another assignment.
      num_folds: of "kfold", at least 3.
      fold: of "kfold", 0 to num_folds - 1.
      published: study id -> "train" or "test", for "covidnet3d".

    Returns:
      Part -> positions in `study_ids`, sorted.

    Raises:
      UserError: an unknown protocol, a fold out of range, no published split, an id that stands twice, or a
        part that would be empty.
    """
    _check(study_ids, strata, protocol, num_folds, fold)
    everything = _strata(study_ids, strata, range(len(study_ids)), seed)
    if protocol == "holdout":
        parts = _deal(everything, _HOLDOUT)
    elif protocol == "kfold":
        folds = _deal_folds(everything, num_folds)
        validation = (fold + 1) % num_folds
        learning = [i for number, members in enumerate(folds) if number not in (fold, validation) for i in members]
        parts = {"train": learning, "validation": folds[validation], "test": folds[fold]}
    elif protocol == "covidnet3d":
        parts = _published_parts(study_ids, strata, seed, published)
    else:
        raise UserError(f"--protocol={protocol} is unknown: use holdout, kfold or covidnet3d")
    for part in PARTS:
        if not parts[part]:
            remedy = " or lower --num_folds" if protocol == "kfold" else ""
            raise UserError(
                f"--protocol={protocol} leaves none of {len(study_ids)} studies to {part}: add some{remedy}"
            )
    return {part: np.sort(np.asarray(parts[part], np.int64)) for part in PARTS}


def split_hash(parts: Mapping[str, np.ndarray], study_ids: Sequence[str]) -> str:
    """Identify a split: SHA-256 in hex of each part's sorted study ids, whatever the record order."""
    members = {part: sorted(study_ids[i] for i in map(int, rows)) for part, rows in parts.items()}
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()
