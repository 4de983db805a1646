"""Data leakage between the studies that develop a network and those that evaluate it; it stops the command.

A leak is a study, identical voxels, or nearly identical voxels (a shifted, noisy, flipped or rescaled copy) on both
sides.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from covidscan.metrics.signed_json import check_signed, sign
from covidscan.runs.workdir import run_id
from tfds_mosmed import storage
from tfds_mosmed.building.index import StudyIndex
from tfds_mosmed.dataset_names import ONE_STUDY_PER_PATIENT
from tfds_mosmed.errors import NOT_AS_WRITTEN, UserError
from tfds_mosmed.preprocessing import signature

FILE = "studies.json"
PRETRAINING = "pretraining"  # folder in a workdir, with the studies of the network that it began with
OF_RUN = " at step "  # in the identity of a network of a run; that of an exported model is its hash
GLOBAL_IDS = ("mosmed", "ct_phantom")  # data sets in which an id is the same study in every configuration
DEVELOPMENT_PARTS = ("train", "validation")  # parts that set the parameters of a network or select among them


class StudyKeys(NamedTuple):
    """Keys by which studies are found in other data sets.

    Attributes:
      study_id: (study,).
      voxels_sha256: (study,) see `tfds_mosmed.scans.scan.Scan.voxels_sha256`.
      signature: (study,) text, see `tfds_mosmed.preprocessing.signature`.
    """

    study_id: list[str]
    voxels_sha256: list[str]
    signature: list[str]

    @classmethod
    def of_index(cls, index: StudyIndex) -> "StudyKeys":
        """Return the keys of all studies of a data set."""
        return cls(list(index.study_id), list(index.voxels_sha256), list(index.signature))

    def take(self, rows: Sequence[int] | np.ndarray) -> "StudyKeys":
        """Return the keys of some studies, by row."""
        return StudyKeys(*([column[int(row)] for row in rows] for column in self))


def check_parts(
    keys: StudyKeys,
    parts: Mapping[str, np.ndarray],
    dataset: str,
    patients: Sequence[str] = (),
    dropped: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Check that no study and no patient is in two parts of a data set.

    Args:
      keys: of all its studies.
      parts: name -> rows.
      dataset: its name, NAME/CONFIG.
      patients: a pseudonym for each study, "" of an unknown one; or none at all.
      dropped: studies in no part -> the reason.

    Returns:
      What was compared, whether patients were told apart, and how many studies are in no part, in a few sentences.

    Raises:
      UserError: two studies are the same; the message names the first such pair.
    """
    if patients:
        _check_patients(keys, parts, patients, dataset)
    sides = {part: keys.take(rows) for part, rows in parts.items()}
    for one, other in combinations(sides, 2):
        pairs = _same_studies(sides[one], sides[other], same_ids=True)
        if pairs:
            raise UserError(
                f"--dataset={dataset}: {_describe(pairs, one, other)}: remove one of them from --manual_dir and build "
                "the records again, or train with --on_leak=drop"
            )
    sizes = ", ".join(f"{len(side.study_id)} {part}" for part, side in sides.items())
    reasons = Counter(dropped.values())
    left = "".join(f" {count} studies are in no part: {reason}." for reason, count in reasons.items())
    told = _patients(dataset) if not any(patients) else _describe_patients(patients)
    return f"No study is in two parts ({sizes} studies of {dataset}): {_COMPARED}.{told}{left}"


def _check_patients(keys: StudyKeys, parts: Mapping[str, np.ndarray], patients: Sequence[str], dataset: str) -> None:
    """Check that no patient is in two parts, whatever assigned them."""
    first: dict[str, tuple[str, int]] = {}
    for part, rows in parts.items():
        for row in map(int, rows):
            its, other = first.setdefault(patients[row], (part, row)) if patients[row] else (part, row)
            if its != part:
                raise UserError(
                    f"--dataset={dataset}: studies {keys.study_id[other]} ({its}) and {keys.study_id[row]} ({part}) "
                    "are of one patient: use another --protocol"
                )


def _describe_patients(patients: Sequence[str]) -> str:
    unknown = sum(not patient for patient in patients)
    known = f" No patient is in two parts: {len({*patients} - {''})} patients have {len(patients) - unknown} studies"
    rest = (
        f"; the patients of the other {unknown} are not known, and each was taken for one of its own" if unknown else ""
    )
    return f"{known}{rest}."


def drop_copies(keys: StudyKeys, parts: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Remove studies that are nearly those of a part that matters more: test before validation before train.

    Returns:
      The parts without them; and their ids, with the reason.
    """
    kept, dropped = dict(parts), {}
    for part, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        pairs = _same_studies(keys.take(kept[part]), keys.take(kept[other]), same_ids=True)
        copies = {pair.one for pair in pairs}
        kept[part] = np.array([row for row in kept[part] if keys.study_id[row] not in copies], np.int64)
        dropped |= dict.fromkeys(copies, f"near copies of studies for {other}, left out of {part}")
        if not len(kept[part]):
            raise UserError(f"--on_leak=drop leaves no studies to {part}: all are near copies of those for {other}")
    return kept, dropped


def check_tested(
    trained: Mapping[str, StudyKeys],
    tested: StudyKeys,
    *,
    trained_on: str,
    dataset: str,
) -> str:
    """Check that no evaluated study was used to develop the network.

    Args:
      trained: part -> keys of the run's studies, see `read`; those of `DEVELOPMENT_PARTS` are compared.
      tested: keys of the evaluated studies.
      trained_on: the data set of the run, NAME/CONFIG.
      dataset: the data set of the evaluated studies. Ids are compared within MosMedData and within the phantoms only:
        in other data sets equal names may be different studies.

    Returns:
      What was compared, and whether patients were told apart, in a sentence or two.

    Raises:
      UserError: two studies are the same; the message names the first such pair.
    """
    same_ids = _have_same_ids(trained_on, dataset)
    for development in DEVELOPMENT_PARTS:
        pairs = _same_studies(trained[development], tested, same_ids)
        if pairs:
            raise UserError(
                f"--dataset={dataset}: {_describe(pairs, f'{development} of {trained_on}', 'test')}: the network was "
                "developed on them; remove such studies from --manual_dir and build the records again"
            )
    sizes = " and ".join(f"{len(trained[development].study_id)} {development}" for development in DEVELOPMENT_PARTS)
    return (
        f"None of the {len(tested.study_id)} studies of {dataset} is among the {sizes} studies of {trained_on}: "
        f"{_COMPARED if same_ids else _COMPARED_VOXELS}.{_patients(trained_on, dataset)}"
    )


def check_choosing(before: Mapping[str, StudyKeys], validation: StudyKeys, *, trained_on: str, dataset: str) -> str:
    """Check that no validation study of a run trained the network that it began with.

    Checkpoint, recalibration and threshold would be chosen on predictions of studies that are known by heart. Studies
    that validated the earlier network may validate this one too.

    Args:
      before: part -> keys of the studies that developed the earlier network; those of "train" are compared.
      validation: keys of the run's validation studies.
      trained_on: the data set of the earlier network, NAME/CONFIG.
      dataset: that of the run.

    Returns:
      What was compared, in a sentence.

    Raises:
      UserError: such studies are there; the message counts them and names the first.
    """
    pairs = _same_studies(before["train"], validation, _have_same_ids(trained_on, dataset))
    count = len(validation.study_id)
    if pairs:
        raise UserError(
            f"{len({pair.other for pair in pairs})} of the {count} validation studies of this run trained it, which "
            f"would choose checkpoint, recalibration and threshold: {_describe(pairs[:1], 'train', 'validation')}"
        )
    return f" None of the {count} validation studies is among those that trained it."


def _have_same_ids(one: str, other: str) -> bool:
    family = one.partition("/")[0]
    return family in GLOBAL_IDS and other.partition("/")[0] == family


def _patients(*datasets: str) -> str:
    """Return a sentence about patients, unless each data set is known to have one study of each."""
    if all(dataset.partition("/")[0] in ONE_STUDY_PER_PATIENT for dataset in datasets):
        return ""
    return (
        " Patients were not told apart: different studies of one patient may be on both sides, which makes the metrics "
        "better than new patients would give."
    )


def write(workdir: epath.PathLike, keys: StudyKeys, parts: Mapping[str, np.ndarray], owner: str | None = None) -> None:
    """Write the keys of a run's studies to its workdir, atomically; `owner` is the run's id, where it is not there."""
    content = {
        part: [dict(zip(StudyKeys._fields, study, strict=True)) for study in zip(*keys.take(rows), strict=True)]
        for part, rows in parts.items()
    }
    text = json.dumps(sign(content, owner or run_id(workdir)), indent=1) + "\n"
    storage.write_whole(epath.Path(workdir) / FILE, text.encode())


def read(workdir: epath.PathLike, owner: str | None = None) -> dict[str, StudyKeys]:
    """Read the keys of a run's studies: part -> keys; see `write`.

    Raises:
      UserError: the file is missing, or not as it was written.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        raise UserError(
            f"{path} does not exist: it lists the studies that the network was developed on, without which leakage "
            "cannot be excluded; train it again in another --workdir"
        )
    remedy = "run python -m covidscan.train again with the same flags, which writes it"
    if path.parent.name == PRETRAINING:
        remedy = "put it back from a copy, or train in another --workdir"
    owner = owner or run_id(workdir)
    try:
        content = check_signed(json.loads(path.read_bytes()), "it", owner)
        keys = {
            part: StudyKeys(*([study[name] for study in studies] for name in StudyKeys._fields))
            for part, studies in content.items()
        }
        for part in {*DEVELOPMENT_PARTS, *keys}:
            if not all(isinstance(value, str) for values in keys[part] for value in values):
                raise TypeError(f"{part} holds something else than texts")
            signature.from_texts(keys[part].signature)
    except NOT_AS_WRITTEN as error:
        raise UserError(f"{path} is not as training wrote it ({error!r}): {remedy}") from error
    return keys


def write_pretraining(workdir: epath.PathLike, studies: Mapping[str, StudyKeys] | None) -> None:
    """Write the keys of the studies that developed the network that a run begins with, where they are known."""
    if studies is None:
        return
    folder = epath.Path(workdir) / PRETRAINING
    storage.make_folder(folder)
    keys = StudyKeys(*([value for part in studies.values() for value in part[column]] for column in range(3)))
    ends = np.cumsum([0, *(len(part.study_id) for part in studies.values())])
    parts = {part: np.arange(*ends[number : number + 2]) for number, part in enumerate(studies)}
    write(folder, keys, parts, run_id(workdir))


def read_pretraining(workdir: epath.PathLike, began: Mapping[str, Any] | None) -> dict[str, StudyKeys] | None:
    """Read the keys of the studies that developed the network that a run began with.

    Args:
      workdir: the run.
      began: "initialisation" of its config.json.

    Returns:
      Part -> keys; None where it began with no network, or with an exported one, whose studies are not known.

    Raises:
      UserError: see `read`.
    """
    of_run = began is not None and OF_RUN in began["identity"]
    return read(epath.Path(workdir) / PRETRAINING, run_id(workdir)) if of_run else None


def are_those_of(workdir: epath.PathLike, keys: StudyKeys) -> bool:
    """Return whether studies have all ids of a run's parts, with the same voxels. Raises UserError; see `read`."""
    known = {pair for part in read(workdir).values() for pair in zip(part.study_id, part.voxels_sha256, strict=True)}
    return known <= set(zip(keys.study_id, keys.voxels_sha256, strict=True))


_COMPARED_VOXELS = (
    "voxels (SHA-256) and perceptual hashes, in all eight orientations and up to a distance of "
    f"{signature.MAX_DISTANCE:g}, were compared"
)
_COMPARED = f"study ids, {_COMPARED_VOXELS}"


class _Pair(NamedTuple):
    one: str
    other: str
    reason: str


def _same_studies(one: StudyKeys, other: StudyKeys, same_ids: bool) -> list[_Pair]:
    """Return pairs that are the same study, the most certain first."""
    reasons: dict[tuple[str, str], str] = {}
    if same_ids:
        reasons.update({(name, name): "are one study" for name in sorted({*one.study_id} & {*other.study_id})})
    by_voxels = dict(zip(other.voxels_sha256, other.study_id, strict=True))
    for digest, name in zip(one.voxels_sha256, one.study_id, strict=True):
        if digest in by_voxels:
            reasons.setdefault((name, by_voxels[digest]), "have the same voxels")
    near = signature.near_duplicates(signature.from_texts(one.signature), signature.from_texts(other.signature))
    for row, column, distance in near:
        reason = f"have nearly the same voxels (distance {distance:.3f} of at most {signature.MAX_DISTANCE:g})"
        reasons.setdefault((one.study_id[row], other.study_id[column]), reason)
    return [_Pair(*pair, reason) for pair, reason in reasons.items()]


def _describe(pairs: list[_Pair], one: str, other: str) -> str:
    first = pairs[0]
    more = f", and {len(pairs) - 1} more such pairs" if len(pairs) > 1 else ""
    return f"studies {first.one} ({one}) and {first.other} ({other}) {first.reason}{more}"
