"""Finds the studies in what a user names: files and folders of NIfTI images and DICOM series."""

import collections
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydicom.filereader import read_partial

from tfds_mosmed.scans.dicom_headers import silent_pydicom
from tfds_mosmed.scans.nifti import is_nifti_name

HEADER_BYTES = 2**20  # what says which study a file belongs to lies before its pixels, and before what is long
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
NUMBER_OF_FRAMES = 0x00280008
DEFLATED = b"1.2.840.10008.1.2.1.99"


class Found(NamedTuple):
    """A study to read.

    Attributes:
      name: what outputs and messages call it. Nothing of the path that the user did not type: it may name the patient.
      path: the file or folder to read.
    """

    name: str
    path: Path


class _Header(NamedTuple):
    """What a DICOM file says of where it belongs; "" where it does not say."""

    study: str
    series: str
    frames: int


class _Place(NamedTuple):
    """A folder, or a multi-frame file, that holds a series."""

    path: Path
    header: _Header


def find_studies(paths: Sequence[str]) -> list[Found]:
    """Find the studies in files and folders.

    A NIfTI file is a study, and so is a multi-frame DICOM file, or a folder with DICOM files; folders of series that
    name the same StudyInstanceUID are one study. Hidden files and folders are passed over.

    Args:
      paths: as the user typed them.

    Returns:
      At least one study a path, in their order: what cannot be read is told by its reader. A path that is one study is
      called as it was typed, studies below it PATH#1, PATH#2 … in the order of their own paths.
    """
    return [found for path in paths for found in _studies_of(path)]


def _studies_of(typed: str) -> list[Found]:
    path = Path(typed)
    try:
        studies = studies_below(path, itself=True) if path.is_dir() else []
    except OSError:
        studies = []  # its reader tells it
    if not studies or studies == [path]:
        return [Found(typed, path)]
    if len(studies) == 1 and studies[0].is_dir():
        return [Found(typed, studies[0])]
    return [Found(f"{typed}#{number}", study) for number, study in enumerate(studies, 1)]


def studies_below(root: Path, itself: bool) -> list[Path]:
    """Find the studies in a folder, at any depth; see `find_studies`.

    Args:
      root: the folder.
      itself: whether the folder may be a study of several series in folders of their own.

    Returns:
      NIfTI files, and DICOM files or folders, sorted. `root` is among them where it holds DICOM files itself.
    """
    studies: list[Path] = []
    # A folder that cannot be listed is a study that cannot be read.
    unreadable: list[Path] = []
    series_of: dict[str, list[_Place]] = collections.defaultdict(list)
    for folder, subfolders, names in os.walk(root, onerror=lambda error: unreadable.append(Path(error.filename))):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        studies += [Path(folder, name) for name in names if is_nifti_name(name)]
        for place in _dicom_in(Path(folder), names):
            series_of[place.header.study or str(place.path)].append(place)
    for series in series_of.values():
        studies += _study_folders(root, series, series_of, itself)
    return sorted([*studies, *unreadable])


def _dicom_in(folder: Path, names: list[str]) -> list[_Place]:
    """Say what of a folder may be a study: the folder, or its multi-frame files."""
    files = (folder / name for name in sorted(names) if _may_be_dicom(folder / name))
    places = (_Place(file, header) for file in files if (header := _header(file)) is not None)
    first = next(places, None)
    if first is None:
        return []
    if first.header.frames > 1:
        all_places = [first, *places]
        if len({place.header.study for place in all_places}) > 1:
            return all_places
    return [_Place(folder, first.header)]


def _may_be_dicom(file: Path) -> bool:
    """Tell whether a file may be a DICOM image, by its name or its first bytes: many are named by a UID."""
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR" or not file.is_file():
        return False
    if file.suffix.lower() in (".dcm", ".dicom", ".ima", ""):
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _header(file: Path) -> _Header | None:
    """Read what a DICOM file says; None if it is none."""
    try:
        with file.open("rb") as opened:
            head = opened.read(HEADER_BYTES)
        if DEFLATED in head[:2048]:
            return _Header("", "", 1)  # to inflate it could take any amount of memory
        with silent_pydicom():
            header = read_partial(
                io.BytesIO(head),
                stop_when=lambda tag, _vr, _length: tag > NUMBER_OF_FRAMES,
                specific_tags=[STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, NUMBER_OF_FRAMES],
            )
            study, series = (str(header.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID"))
            return _Header(study, series, int(header.get("NumberOfFrames") or 1))
    except Exception:  # whatever a damaged header makes pydicom raise
        return None


def _study_folders(root: Path, series: list[_Place], series_of: dict[str, list[_Place]], itself: bool) -> list[Path]:
    """The folder that holds these series and no others; where there is none, each series is a study.

    Some anonymisers give all patients one UID, of series too: their folders must not become one study.
    """
    paths = [place.path for place in series]
    common = Path(os.path.commonpath(paths))
    inside = sum(place.path.is_relative_to(common) for others in series_of.values() for place in others)
    one_each = len({place.header.series for place in series}) == len(series)
    return [common] if (itself or common != root) and inside == len(series) and one_each else paths
