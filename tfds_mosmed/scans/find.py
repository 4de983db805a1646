"""Search of files and folders for studies: NIfTI images, DICOM series and multi-frame DICOM files."""

import collections
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydicom.filereader import read_partial

from tfds_mosmed.scans.archive import is_study_archive
from tfds_mosmed.scans.dicom.files import silent_pydicom
from tfds_mosmed.scans.folders import (
    DICOM_SUFFIXES,
    LEFT_OUT_SUFFIXES,
    count_left_out,
    describe_left_out,
    file_suffix,
    is_dicom_name,
    walk,
)
from tfds_mosmed.scans.nifti import is_nifti_name

HEADER_BYTES = 2**20  # the UIDs come before the pixels and other long elements
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
NUMBER_OF_FRAMES = 0x00280008
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # of files without a preamble
DEFLATED = b"1.2.840.10008.1.2.1.99"


class Found(NamedTuple):
    """A study to read.

    Attributes:
      name: the study's name in outputs and messages. Contains only what the user typed of the path: the rest may
        identify the patient.
      path: the file or folder to read.
    """

    name: str
    path: Path


class _Series(NamedTuple):
    """A DICOM file, or the folder of a series: its path, StudyInstanceUID and SeriesInstanceUID, "" if unknown."""

    path: Path
    study: str
    series: str
    num_frames: int


def find_studies(paths: Sequence[str]) -> list[Found]:
    """Find the studies in files and folders.

    A NIfTI file is a study, and so is a .zip of one, a multi-frame DICOM file, or a folder with DICOM files; folders of
    series with the same StudyInstanceUID are one study. A folder whose files have the names of DICOM files but cannot
    be read is one too, and an error when it is read. Hidden files and folders are skipped, links to folders are
    followed. Files of other kinds that may hold studies, and empty folders, are counted in the log.

    Args:
      paths: as the user typed them.

    Returns:
      At least one study per path, in the order of the paths; an unusable path is an error when it is read. A path that
      is one study has the path as its name; studies below it are named PATH#1, PATH#2 … in the order of their paths.
    """
    return [found for path in paths for found in _studies_of(path)]


def _studies_of(typed: str) -> list[Found]:
    path = Path(typed)
    try:
        studies, left_out = studies_below(path, itself=True) if path.is_dir() else ([], {})
    except OSError:
        studies, left_out = [], {}  # an error when it is read
    log_left_out(path, left_out)
    if not studies or studies == [path]:
        return [Found(typed, path)]
    if len(studies) == 1 and studies[0].is_dir():
        return [Found(typed, studies[0])]
    return [Found(f"{typed}#{number}", study) for number, study in enumerate(studies, 1)]


def log_left_out(root: Path, counts: Mapping[str, int], remedy: str = "give .nii or DICOM") -> None:
    """Warn of files that may hold studies and are not read; see `count_left_out`."""
    if counts:
        kinds = describe_left_out(counts)
        logging.getLogger(__name__).warning("%s: left out %s, which are not read; %s", root, kinds, remedy)


def studies_below(
    root: Path, itself: bool, suffixes: Sequence[str] = LEFT_OUT_SUFFIXES
) -> tuple[list[Path], dict[str, int]]:
    """Find the studies in a folder, at any depth; see `find_studies`.

    Args:
      root: the folder.
      itself: whether the folder may be a study of several series in folders of their own.
      suffixes: of the files that are counted.

    Returns:
      NIfTI files, and DICOM files or folders, sorted; `root` too if it holds DICOM files itself. And the number of
      files of other kinds, see `count_left_out`, and of empty folders.
    """
    studies: list[Path] = []
    # A folder that cannot be listed is a study that cannot be read.
    unreadable: list[Path] = []
    series_of: dict[str, list[_Series]] = collections.defaultdict(list)
    left_out: list[str] = []
    empty: set[Path] = set()
    damaged: list[Path] = []  # a file of each folder
    for name, names in walk(root, lambda error: unreadable.append(Path(error.filename))):
        folder = Path(name)
        files = [name for name in names if is_nifti_name(name) or is_study_archive(folder / name)]
        studies += [folder / name for name in files]
        others = [name for name in names if name not in files]
        empty.discard(folder.parent)
        if not names:
            empty.add(folder)
        series_in = _dicom_series_in(folder, others)
        # Some scanners name slices like images of other kinds.
        left_out += [
            name
            for name in others
            if not (series_in and file_suffix(name) in suffixes and _may_be_dicom(folder / name))
        ]
        for found in series_in:
            series_of[found.study or str(found.path)].append(found)
        if not series_in:
            damaged += [folder / name for name in others if is_dicom_name(name)][:1]
    for series in series_of.values():
        studies += _study_folders(root, series, series_of, itself)
    studies += _damaged_studies(damaged, studies)
    num_empty = len(empty - {root, *(path.parent for path in unreadable)})
    counts = count_left_out(left_out, suffixes) | ({"empty folders": num_empty} if num_empty else {})
    return sorted([*studies, *unreadable]), counts


def _damaged_studies(damaged: list[Path], studies: list[Path]) -> list[Path]:
    """Return the folders of DICOM files none of which can be read, or a file of it if there are studies below.

    Those in the folder of a study are left out: the reader of the study counts them.
    """
    folders = {study for study in studies if study.is_dir()}
    parents = {parent for study in studies for parent in study.parents}
    return [
        file if file.parent in parents else file.parent for file in damaged if not folders.intersection(file.parents)
    ]


def _dicom_series_in(folder: Path, names: list[str]) -> list[_Series]:
    """Return the folder if it holds DICOM files, or its multi-frame files if they belong to several studies."""
    paths = (folder / name for name in sorted(names) if _may_be_dicom(folder / name))
    files = (file for path in paths if (file := _read_header(path)) is not None)
    first = next(files, None)
    if first is None:
        return []
    if first.num_frames > 1:
        all_files = [first, *files]
        if len({file.study for file in all_files}) > 1:
            return all_files
    return [first._replace(path=folder)]


def _may_be_dicom(file: Path) -> bool:
    """Return whether a file may be a DICOM image, by its name or its first bytes: many have a UID for a name."""
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR" or not file.is_file():
        return False
    if file.suffix.lower() in (*DICOM_SUFFIXES, ""):
        return True
    try:
        with file.open("rb") as opened:
            head = opened.read(132)
        return head[128:] == b"DICM" or head[:2] in FIRST_GROUPS
    except OSError:
        return False


def _read_header(file: Path) -> _Series | None:
    """Read the header of a DICOM file; None if it is not one."""
    try:
        with file.open("rb") as opened:
            head = opened.read(HEADER_BYTES)
        if DEFLATED in head[:2048]:
            return _Series(file, "", "", 1)  # inflating it could take any amount of memory
        with silent_pydicom():
            header = read_partial(
                io.BytesIO(head),
                stop_when=lambda tag, _vr, _length: tag > NUMBER_OF_FRAMES,
                specific_tags=[STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, NUMBER_OF_FRAMES],
                force=True,
            )
            if head[128:132] != b"DICM" and "StudyInstanceUID" not in header:
                return None
            study, series = (str(header.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID"))
            return _Series(file, study, series, int(header.get("NumberOfFrames") or 1))
    except Exception:  # whatever a damaged header makes pydicom raise
        return None


def _study_folders(root: Path, series: list[_Series], series_of: dict[str, list[_Series]], itself: bool) -> list[Path]:
    """Return the folder that holds these series and no others; without one, each series is a study.

    Some anonymisers give all patients the same UIDs, of series too: their folders must not become one study.
    """
    paths = [one.path for one in series]
    common = Path(os.path.commonpath(paths))
    num_inside = sum(one.path.is_relative_to(common) for others in series_of.values() for one in others)
    places = {one.series: one.path for one in series}
    uids_differ = len(places) == len(series)
    for first in [one for one in series if one.series and one.path != places[one.series]][:1]:
        logging.getLogger(__name__).warning(
            "%s and %s have one SeriesInstanceUID and are read as different studies; if they are parts of one, put all "
            "files into one folder", first.path, places[first.series]
        )  # fmt: skip
    return [common] if (itself or common != root) and num_inside == len(series) and uids_differ else paths
