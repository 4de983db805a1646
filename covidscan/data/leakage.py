"""Leaks between the studies that make a network and those that judge it: each is looked for and stops the command.

A leak is a study, the very voxels of a study, or nearly the same voxels (a shifted, noisy, flipped or rescaled copy)
on both sides.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from tfds_mosmed import storage
from tfds_mosmed.building.index import StudyIndex
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing import signature

FILE = "studies.json"
GLOBAL_IDS = ("mosmed", "ct_phantom")  # data sets whose ids name the same study in every configuration
MAKERS = ("train", "validation")  # the parts whose studies make a network: they set its weights or choose among them


class StudyMarks(NamedTuple):
    """What studies are known by, wherever they turn up again.

    Attributes:
      study_id: (study,).
      voxels_sha256: (study,) see `tfds_mosmed.scans.scan.Scan.voxels_sha256`.
      signature: (study,) text, see `tfds_mosmed.preprocessing.signature`.
    """

    study_id: list[str]
    voxels_sha256: list[str]
    signature: list[str]

    @classmethod
    def of_index(cls, index: StudyIndex) -> "StudyMarks":
        """Take the marks of all studies of a data set."""
        return cls(list(index.study_id), list(index.voxels_sha256), list(index.signature))

    def take(self, rows: Sequence[int] | np.ndarray) -> "StudyMarks":
        """Take the marks of some studies."""
        return StudyMarks(*([column[int(row)] for row in rows] for column in self))


def check_parts(marks: StudyMarks, parts: Mapping[str, np.ndarray], dataset: str) -> str:
    """Check that no study stands in two parts of a data set.

    Args:
      marks: of all its studies.
      parts: name -> rows.
      dataset: its name, NAME/CONFIG.

    Returns:
      A sentence on what was compared.

    Raises:
      UserError: names the first two studies that are one.
    """
    sides = {part: marks.take(rows) for part, rows in parts.items()}
    for one, other in combinations(sides, 2):
        finds = _finds(sides[one], sides[other], same_ids=True)
        if finds:
            raise UserError(
                f"--dataset={dataset}: {_described(finds, one, other)}: remove one of them from --manual_dir and build "
                "the records again"
            )
    sizes = ", ".join(f"{len(side.study_id)} {part}" for part, side in sides.items())
    return f"No study stands in two parts ({sizes} studies of {dataset}): {_COMPARED}."


def check_tested(
    trained: Mapping[str, StudyMarks], tested: StudyMarks, *, trained_on: str, dataset: str, part: str = "test"
) -> str:
    """Check that none of the studies that judge a network has made it.

    Args:
      trained: part -> marks, as `read` gives them; the training and the validation studies count.
      tested: the studies that judge.
      trained_on: the data set of the run, NAME/CONFIG.
      dataset: the data set of the studies that judge. Ids say something within MosMedData and the phantoms alone:
        folders are often called alike.
      part: what the message calls them.

    Returns:
      A sentence on what was compared.

    Raises:
      UserError: names the first two studies that are one.
    """
    family = dataset.partition("/")[0]
    same_ids = family in GLOBAL_IDS and trained_on.partition("/")[0] == family
    for made in MAKERS:
        finds = _finds(trained[made], tested, same_ids)
        if finds:
            raise UserError(
                f"--dataset={dataset}: {_described(finds, f'{made} of {trained_on}', part)}: the network knows what it "
                "would be judged on; remove such studies from --manual_dir and build the records again"
            )
    sizes = " and ".join(f"{len(trained[made].study_id)} {made}" for made in MAKERS)
    return (
        f"None of the {len(tested.study_id)} studies of {dataset} is among the {sizes} studies of {trained_on}: "
        f"{_COMPARED if same_ids else _COMPARED_VOXELS}."
    )


def write(workdir: epath.PathLike, marks: StudyMarks, parts: Mapping[str, np.ndarray]) -> None:
    """Keep the marks of a run's studies in its workdir, whole or not at all."""
    kept = {
        part: [dict(zip(StudyMarks._fields, study, strict=True)) for study in zip(*marks.take(rows), strict=True)]
        for part, rows in parts.items()
    }
    storage.write_whole(epath.Path(workdir) / FILE, (json.dumps(kept, indent=1) + "\n").encode())


def read(workdir: epath.PathLike) -> dict[str, StudyMarks]:
    """Read what `write` kept: part -> marks.

    Raises:
      UserError: the file is missing.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        raise UserError(
            f"{path} does not exist: it says which studies made the network, and without it no leak can be found; "
            "train it again in another --workdir"
        )
    kept: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
    return {
        part: StudyMarks(*([study[name] for study in studies] for name in StudyMarks._fields))
        for part, studies in kept.items()
    }


_COMPARED_VOXELS = (
    "voxels (SHA-256) and perceptual hashes, in all eight orientations and up to a distance of "
    f"{signature.MAX_DISTANCE:g}, were compared"
)
_COMPARED = f"study ids, {_COMPARED_VOXELS}"


class _Find(NamedTuple):
    one: str
    other: str
    how: str


def _finds(one: StudyMarks, other: StudyMarks, same_ids: bool) -> list[_Find]:
    """Pairs that are the same study, the surest first."""
    finds: dict[tuple[str, str], str] = {}
    if same_ids:
        finds.update({(name, name): "are one study" for name in sorted({*one.study_id} & {*other.study_id})})
    there = dict(zip(other.voxels_sha256, other.study_id, strict=True))
    for digest, name in zip(one.voxels_sha256, one.study_id, strict=True):
        if digest in there:
            finds.setdefault((name, there[digest]), "have the same voxels")
    near = signature.near_duplicates(signature.from_texts(one.signature), signature.from_texts(other.signature))
    for row, column, distance in near:
        how = f"have nearly the same voxels (distance {distance:.3f} of at most {signature.MAX_DISTANCE:g})"
        finds.setdefault((one.study_id[row], other.study_id[column]), how)
    return [_Find(*pair, how) for pair, how in finds.items()]


def _described(finds: list[_Find], one: str, other: str) -> str:
    first = finds[0]
    more = f", and {len(finds) - 1} more such pairs" if len(finds) > 1 else ""
    return f"studies {first.one} ({one}) and {first.other} ({other}) {first.how}{more}"
