"""A study in a .zip archive, unpacked into a temporary folder while it is read."""

import contextlib
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tfds_mosmed.scans.folders import count_left_out, describe_left_out, is_dicom_name, is_hidden
from tfds_mosmed.scans.nifti import is_nifti_name
from tfds_mosmed.scans.scan import MAX_BYTES, MIN_SLICES, ScanError

MAX_UNPACKED_BYTES = 4 * MAX_BYTES
MAX_MEMBERS = 20_000
# Raised by zipfile where an archive is damaged, encrypted, or of an unknown kind.
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
REASONS = {NotImplementedError: "unknown compression", RuntimeError: "it is encrypted"}  # their texts quote names


def is_study_archive(path: Path) -> bool:
    """Return whether a file is a .zip that may hold a study, by the names in it; also if it is damaged."""
    if not is_zip_name(path.name) or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(member.filename).name for member in images_in(archive)]
            return len(names) >= MIN_SLICES or any(is_nifti_name(name) or is_dicom_name(name) for name in names)
    except (OSError, *ZIP_ERRORS):
        return True  # an error when it is read


def describe_others(path: Path) -> str:
    """Describe the members of a .zip archive that are not unpacked although they may be images or archives."""
    with zipfile.ZipFile(path) as archive:
        return describe_left_out(count_left_out(PurePosixPath(member.filename).name for member in archive.infolist()))


def is_zip_name(name: str) -> bool:
    """Return whether a file is a .zip archive, by its name."""
    return name.lower().endswith(".zip") and not is_hidden(name)


@contextlib.contextmanager
def unpacked(path: Path, name: str) -> Iterator[Path]:
    """Unpack the images of a .zip archive into a temporary folder that only this user can read.

    Files get numbers for names, in a folder for each folder of the archive, so that no name in it can point elsewhere.

    Args:
      path: the archive.
      name: the study's name in messages.

    Raises:
      ScanError: it cannot be unpacked, or is larger than a study can be.
    """
    from tfds_mosmed import storage  # imports more than reading other files needs

    with contextlib.ExitStack() as stack:
        try:
            parent = Path(tempfile.gettempdir(), f"covidscan-{os.getuid()}")
            parent.mkdir(mode=0o700, exist_ok=True)
            folder = stack.enter_context(storage.partial_folder(parent))
            folder.chmod(0o700)
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, folder)
        except ScanError as error:
            raise error.of(name) from error
        except (OSError, *ZIP_ERRORS) as error:
            reason = getattr(error, "strerror", None) or REASONS.get(type(error), "damaged or cut short")
            raise ScanError(f"{name}: cannot be unpacked ({reason}); unpack it yourself, or copy it again") from error
        yield folder


@contextlib.contextmanager
def files_again(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the files of a study that was read, see `Scan.frames`, unpacked again if they are in an archive.

    Raises:
      ScanError: the archive cannot be unpacked.
    """
    packed = next((folder for folder in paths[0].parents if is_zip_name(folder.name) and folder.is_file()), None)
    if packed is None:
        yield list(paths)
        return
    with unpacked(packed, "the archive") as folder:
        yield [folder / path.relative_to(packed) for path in paths]


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    members = images_in(archive)
    size = sum(member.file_size for member in members)  # more than that is not read of a member
    if size > MAX_UNPACKED_BYTES or len(members) > MAX_MEMBERS:
        raise ScanError(
            f"holds {len(members)} files of {size / 2**30:.1f} GiB, and a study may take {MAX_MEMBERS} files of "
            f"{MAX_UNPACKED_BYTES >> 30} GiB; give a folder or an archive for each study"
        )
    folders: dict[PurePosixPath, Path] = {}
    for number, member in enumerate(members):
        name = PurePosixPath(member.filename)
        parent = folders.setdefault(name.parent, folder / f"{len(folders):05d}")
        parent.mkdir(exist_ok=True)
        suffix = "".join(name.suffixes[-2:]) if is_nifti_name(name.name) else ".dcm" if is_dicom_name(name.name) else ""
        with archive.open(member) as packed, (parent / f"member{number:05d}{suffix}").open("xb") as file:
            shutil.copyfileobj(packed, file)


def images_in(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the members that may be images, by their names, in the order of these."""
    members = []
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        if member.is_dir() or not parts or any(is_hidden(part) and part != ".." for part in parts):
            continue
        suffix = PurePosixPath(parts[-1]).suffix
        may_be_dicom = is_dicom_name(parts[-1]) or not suffix or suffix[1:].isdigit()
        if is_nifti_name(parts[-1]) or (may_be_dicom and parts[-1].upper() != "DICOMDIR"):
            members.append(member)
    return sorted(members, key=lambda member: member.filename)
