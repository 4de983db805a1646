"""Walk through folders of studies, and the kinds of files in them that are not read."""

import collections
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

LEFT_OUT_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".7z", ".rar", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img", ".npy",
    ".npz", ".mgz", ".h5", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii.bz2", ".nii.xz", ".nii.zst",
    ".bz2", ".xz", ".zst", ".iso", ".mnc", ".vtk", ".part", ".partial", ".crdownload", ".download",
)  # fmt: skip
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NUMBERED = re.compile(r"[A-Za-z]{0,5}[-_]?\d+(\.\d+)*|[\w.-]+(\.\d+){4,}")  # names that scanners give: IM0001, a UID
MAX_PATH_BYTES = 4096  # of Linux; whatever is deeper cannot be opened
COMPRESSED_SUFFIXES = (".nii.gz", ".tar.gz", ".nii.bz2", ".nii.xz", ".nii.zst")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is passed over, by its name: hidden, or left by macOS in archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_dicom_name(name: str) -> bool:
    """Return whether a file has a name as DICOM files have; not all of them do."""
    return name.lower().endswith(DICOM_SUFFIXES) or NUMBERED.fullmatch(name) is not None


def walk(
    root: Path, onerror: Callable[[OSError], object], max_depth: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from `root` down with the names of its files, sorted, without hidden ones.

    Links to folders are followed, after all folders that are reached without; each folder comes once.

    Args:
      root: the folder.
      onerror: called with the error, which has the folder's name, if a folder cannot be listed.
      max_depth: folders further below `root` than this are left out.
    """
    visited: set[tuple[int, int]] = set()
    folders, links = [str(root)], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inside = [entry for entry in entries if not is_hidden(entry.name)]
            if any(len(os.fsencode(entry.path)) >= MAX_PATH_BYTES for entry in inside):
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        except OSError as error:
            error.filename = folder
            onerror(error)
            continue
        inside.sort(key=lambda one: one.name)
        is_folder = [_is_folder(entry) for entry in inside]
        below = [entry for entry, is_one in zip(inside, is_folder, strict=True) if is_one]
        if max_depth is not None and len(Path(folder).relative_to(root).parts) >= max_depth:
            below = []
        folders += [entry.path for entry in reversed(below) if not entry.is_symlink()]
        links += [entry.path for entry in below if entry.is_symlink()]
        yield folder, [entry.name for entry, is_one in zip(inside, is_folder, strict=True) if not is_one]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def file_suffix(name: str) -> str:
    """Return the suffix of a file's name in lower case, with the one before a compression's."""
    name = name.lower()
    return next(
        (suffix for suffix in COMPRESSED_SUFFIXES if name.endswith(suffix)),
        Path(name).suffix,
    )


def count_left_out(names: Iterable[str], suffixes: Sequence[str] = LEFT_OUT_SUFFIXES) -> dict[str, int]:
    """Count the images and archives of other kinds among files, by suffix."""
    counts = collections.Counter(file_suffix(name) for name in names)
    return {suffix: counts[suffix] for suffix in suffixes if counts[suffix]}


def describe_left_out(counts: Mapping[str, int]) -> str:
    """Describe the counts of `count_left_out`: "2 .zip, 1 .nrrd"; "" if there are none."""
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())
