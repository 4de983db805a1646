"""Hashes of the files that records were made from, and of the code that makes them, by which others are noticed."""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tfds_mosmed.building.index import name_some
from tfds_mosmed.building.study import FileStudy, SourceFile, Study
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.progress import progress
from tfds_mosmed.scans.scan import ScanError
from tfds_mosmed.workers import MEMORY_GIB

PACKAGES = ("deflate", "nibabel", "numpy", "pydicom", "python-gdcm", "scipy")  # that preparation depends on


class SourceHashes(NamedTuple):
    """Hashes of a study's files.

    Attributes:
      sizes: of the study's class, of what a table tells of it, and of the files' names and sizes; it does not depend on
        where they are.
      times: of the times at which each file and its inode were changed: equal times spare reading the files.
      content: of what is in them.
    """

    sizes: str
    times: str
    content: str


@functools.cache
def preparation_sha256() -> str:
    """Hash the code that prepares studies: this package, and the versions of what it uses.

    Records are updated only by the code that built them, so that all of them are prepared alike.
    """
    digest = hashlib.sha256()
    for name in PACKAGES:
        digest.update(f"{name}=={importlib.metadata.version(name)}\0".encode())
    with importlib.resources.as_file(importlib.resources.files("tfds_mosmed")) as root:
        for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".csv")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def hash_sources(study: Study, *, content: bool = True) -> SourceHashes:
    """Hash a study's files.

    Args:
      study: the study.
      content: whether the files are read; otherwise the hash of their content is "".
    """
    files = sorted(study.files(), key=lambda pair: pair[0])
    stats = [_stat(file) for _, file in files]
    sizes = [f"{name}\0{size}" for (name, _), (size, _) in zip(files, stats, strict=True)]
    return SourceHashes(
        _hash_texts([study.category, *_listed(study), *sizes]),
        _hash_texts(times for _, times in stats),
        _hash_texts(_hash_file(file) for _, file in files) if content else "",
    )


def _listed(study: Study) -> list[str]:
    """Return what a table tells of a study, in one form."""
    if not isinstance(study, FileStudy) or study.listed is None:
        return []
    split, fold, weight, groups = study.listed
    return [json.dumps([study.patient, study.site, split, fold, weight, sorted(groups.items())])]


def _stat(file: SourceFile) -> tuple[int, str]:
    try:
        status = os.stat(file.path)
    except OSError:
        return -1, ""  # the reader reports it
    size = status.st_size if file.member is None else file.size
    # Programs that copy files can set the time of their content, but not that of the inode.
    return size, f"{status.st_mtime_ns} {status.st_ctime_ns}"


def _hash_file(file: SourceFile) -> str:
    """Hash the content of a file; "" if it cannot be read, or is larger than the memory of the worker that reads it."""
    with contextlib.suppress(OSError, ScanError):
        if file.member is not None:
            return hashlib.sha256(file.read()).hexdigest()
        status = os.stat(file.path)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MEMORY_GIB << 30:
            with file.path.open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
    return ""


def _hash_texts(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(os.fsencode(text) + b"\0\0")
    return digest.hexdigest()


def describe_changes(metadata: Mapping[str, Any], studies: Sequence[Study]) -> str:
    """Describe how studies differ from those that records were made from; "" if they do not, or it cannot be told.

    A study whose files have other times is read: it may have been copied.

    Args:
      metadata: of the records; those of earlier versions have no "sources".
      studies: as they are now.
    """
    here = {study.study_id: study for study in studies}
    there = {row["study_id"] for row in metadata["index"]} | {study_id for study_id, _ in metadata["skipped"]}
    stored = {study_id: SourceHashes(*hashes) for study_id, hashes in metadata.get("sources", {}).items()}
    now = {study_id: hash_sources(here[study_id], content=False) for study_id in here if study_id in stored}
    changed = {study_id for study_id, hashes in now.items() if hashes.sizes != stored[study_id].sizes}
    touched = [study_id for study_id, hashes in now.items() if hashes.times != stored[study_id].times]
    if not changed and here.keys() == there:  # else there is a difference already
        with ThreadPoolExecutor(usable_cores()) as threads:
            hashed = threads.map(hash_sources, [here[study_id] for study_id in touched])
            compared = progress(hashed, len(touched), "Comparing files that have new times") if touched else ()
            pairs = list(zip(touched, compared, strict=True))
        changed = {study_id for study_id, hashes in pairs if hashes.content != stored[study_id].content}
    kinds = {"new": here.keys() - there, "missing": there - here.keys(), "changed": changed}
    changes = [f"{len(ids)} {kind}: {name_some(sorted(ids))}" for kind, ids in kinds.items() if ids]
    if not changes and metadata.get("listing_sha256", "") not in ("", _listing_sha256(studies)):
        changes = ["files of other sizes"]
    return "; ".join(changes)


def _listing_sha256(studies: Sequence[Study]) -> str:
    """Hash ids and sizes of NIfTI files, as earlier versions did for data sets of any folder."""
    digest = hashlib.sha256()
    for study in sorted(studies, key=lambda study: study.study_id):
        source = getattr(study, "source", None)
        size = source.num_bytes() if isinstance(source, SourceFile) else 0
        digest.update(f"{study.study_id}\0{size}\0".encode())
    return digest.hexdigest()
