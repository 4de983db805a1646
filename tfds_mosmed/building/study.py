"""Studies that are to be read, and the files that they are in."""

import dataclasses
import hashlib
import tarfile
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfds_mosmed.building.index import Listed
from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.scans.archive import ZIP_ERRORS
from tfds_mosmed.scans.folders import walk
from tfds_mosmed.scans.nifti import is_nifti_name, read_nifti, read_nifti_mask
from tfds_mosmed.scans.read import read_bytes, read_scan
from tfds_mosmed.scans.scan import MAX_BYTES, Scan, ScanError
from tfds_mosmed.workers import bytes_on_disk


class LoadedStudy(NamedTuple):
    """Study that has been read.

    Attributes:
      scan: the CT.
      lesion_mask: bool (slice, row, column) on the scan's voxels, or None.
      warnings: about its files, a line each.
      details: what else is known of it, as plain JSON values, for the index.
      listed: what a table tells of it; None without a table.
    """

    scan: Scan
    lesion_mask: np.ndarray | None
    warnings: tuple[str, ...]
    details: Mapping[str, Any] = types.MappingProxyType({})
    listed: Listed | None = None


class Study(Protocol):
    """Study that can be read, also in another process or on another machine."""

    @property
    def study_id(self) -> str:
        """Id in the records."""
        ...

    @property
    def category(self) -> str:
        """Class in the records."""
        ...

    def load(self) -> LoadedStudy:
        """Read it; raises ScanError."""
        ...

    def files(self) -> list[tuple[str, "SourceFile"]]:
        """Return its files with names that do not depend on where the study is; none where it is generated."""
        ...


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """File of its own or member of an archive, which is read without unpacking the rest.

    Attributes:
      path: the file or the archive.
      member: the file's name in the archive, or None.
      offset: position of its first byte in a tar archive, or None.
      size: number of bytes of a member.
    """

    path: Path
    member: str | None = None
    offset: int | None = None
    size: int = 0

    @property
    def name(self) -> str:
        """Name in messages."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    def read(self) -> bytes:
        """Read the file; raises ScanError."""
        if self.member is None:
            return read_bytes(self.path)
        if self.size > MAX_BYTES:
            raise ScanError(f"{self.name}: is larger than {MAX_BYTES >> 20} MiB, which no chest CT is; leave it out")
        try:
            if self.offset is None:
                return self._read_from_zip(self.member)
            with self.path.open("rb") as archive:
                archive.seek(self.offset)
                return archive.read(self.size)
        except ScanError:
            raise
        except (OSError, tarfile.TarError, *ZIP_ERRORS) as error:
            raise ScanError(f"{self.name}: cannot be read ({error}); download the archive again") from error

    def num_bytes(self) -> int:
        """Return the file's size; 0 if it cannot be told."""
        return self.size if self.member else bytes_on_disk(self.path)

    def _read_from_zip(self, member: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ScanError(f"{self.name}: is larger than {MAX_BYTES >> 20} MiB, which no chest CT is; leave it out")
        return content


def git_blob_sha1(content: bytes) -> str:
    """Return git's hash of a file: sha1(b"blob <size>\\0" + bytes)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class FileStudy:
    """Study in files.

    Attributes:
      study_id: its id in the records.
      category: its class in the records.
      source: a NIfTI file, or the path of a DICOM file or folder.
      mask: a NIfTI file with the lesions, on the voxels of `source`; or None.
      volume_sha1: git's hash of the original file, or None if unknown; see `git_blob_sha1`.
      mask_sha1: the same of the mask.
      patient: pseudonym, instead of that in the source; "" if unknown.
      site: instead of that in the source; "" if unknown.
      listed: what a table tells of it; None without a table.
    """

    study_id: str
    category: str
    source: SourceFile | Path
    mask: SourceFile | None = None
    volume_sha1: str | None = None
    mask_sha1: str | None = None
    patient: str = ""
    site: str = ""
    listed: Listed | None = None

    def load(self) -> LoadedStudy:
        """Read the study; raises ScanError."""
        warnings = []
        if isinstance(self.source, Path):
            scan = read_scan(self.source, choose_series=first_with_lungs)
        else:
            content = self.source.read()
            if self.volume_sha1 and git_blob_sha1(content) != self.volume_sha1:
                warnings.append(ALTERED)
            scan = read_nifti(content, self.source.name)
        told = {name: value for name, value in (("patient", self.patient), ("site", self.site)) if value}
        scan = dataclasses.replace(scan, acquisition=scan.acquisition._replace(**told))
        mask = self._load_mask(scan, warnings)
        return LoadedStudy(scan, mask, tuple(warnings), listed=self.listed)

    def _load_mask(self, scan: Scan, warnings: list[str]) -> np.ndarray | None:
        if self.mask is None:
            return None
        content = self.mask.read()
        if self.mask_sha1 and git_blob_sha1(content) != self.mask_sha1:
            warnings.append(MASK_ALTERED)
        mask = read_nifti_mask(content, self.mask.name, scan)
        if not mask.any():
            warnings.append(MASK_EMPTY)
        return mask

    def files(self) -> list[tuple[str, SourceFile]]:
        """Return the study's files; see `Study.files`."""
        masks = [("mask", self.mask)] if self.mask else []
        if isinstance(self.source, SourceFile):
            return [("volume", self.source), *masks]
        if not self.source.is_dir():
            return [("volume", SourceFile(self.source)), *masks]
        paths = (Path(folder, name) for folder, names in walk(self.source, lambda _: None) for name in names)
        return [*((path.relative_to(self.source).as_posix(), SourceFile(path)) for path in paths), *masks]


def source_of(path: Path) -> SourceFile | Path:
    """Return the source of a study: its NIfTI file, or the path of another one."""
    return SourceFile(path) if is_nifti_name(path.name) and path.is_file() else path


ALTERED = "the file is not the one that studies.csv lists"
MASK_ALTERED = "the mask is not the one that studies.csv lists"
MASK_EMPTY = "its lesion mask marks nothing"
