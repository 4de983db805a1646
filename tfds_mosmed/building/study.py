"""What a data set is made of, before it is read: studies, and the files that they are in."""

import dataclasses
import hashlib
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tfds_mosmed.preprocessing.lungs import first_with_lungs
from tfds_mosmed.scans.nifti import read_nifti, read_nifti_mask
from tfds_mosmed.scans.read import read_bytes, read_scan
from tfds_mosmed.scans.scan import MAX_BYTES, Scan, ScanError


class LoadedStudy(NamedTuple):
    """A study as read.

    Attributes:
      scan: the CT.
      lesion_mask: bool (slice, row, column) on the scan's voxels, or None.
      warnings: what was odd about its files.
    """

    scan: Scan
    lesion_mask: np.ndarray | None
    warnings: tuple[str, ...]


class Study(Protocol):
    """A study that can be read, perhaps in another process or on another machine."""

    @property
    def study_id(self) -> str:
        """Its name in the records."""
        ...

    @property
    def category(self) -> str:
        """Its class in the records."""
        ...

    def load(self) -> LoadedStudy:
        """Read it; raises ScanError."""
        ...


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file, on its own or in an archive, from which it is read without unpacking the rest.

    Attributes:
      path: the file or the archive.
      member: the file's name in the archive, or None.
      offset: where it begins in a tar archive, or None.
      size: its bytes in a tar archive.
    """

    path: Path
    member: str | None = None
    offset: int | None = None
    size: int = 0

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    def read(self) -> bytes:
        """Read the file; raises ScanError."""
        if self.member is None:
            return read_bytes(self.path)
        try:
            if self.offset is None:
                return self._read_from_zip(self.member)
            with self.path.open("rb") as archive:
                archive.seek(self.offset)
                return archive.read(self.size)
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
            raise ScanError(f"{self.name}: cannot be read ({error}); download the archive again") from error

    def _read_from_zip(self, member: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ScanError(f"{self.name}: is larger than {MAX_BYTES >> 20} MiB, which no chest CT is; leave it out")
        return content


def git_blob_sha1(content: bytes) -> str:
    """Hash a file as git does: sha1(b"blob <size>\\0" + bytes)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class FileStudy:
    """A study from files.

    Attributes:
      study_id: its name in the records.
      category: its class.
      source: a NIfTI file, or the path of a DICOM file or folder.
      mask: a NIfTI file with the lesions, or None.
      volume_sha1: the hash that git gives to the original file, or None where none is known.
      mask_sha1: the same of the mask.
    """

    study_id: str
    category: str
    source: SourceFile | Path
    mask: SourceFile | None = None
    volume_sha1: str | None = None
    mask_sha1: str | None = None

    def load(self) -> LoadedStudy:
        """Read the study; raises ScanError."""
        if isinstance(self.source, Path):
            return LoadedStudy(read_scan(self.source, choose_series=first_with_lungs), None, ())
        warnings = []
        content = self.source.read()
        if self.volume_sha1 and git_blob_sha1(content) != self.volume_sha1:
            warnings.append(ALTERED)
        scan = read_nifti(content, self.source.name)
        if self.mask is None:
            return LoadedStudy(scan, None, tuple(warnings))
        content = self.mask.read()
        if self.mask_sha1 and git_blob_sha1(content) != self.mask_sha1:
            warnings.append(MASK_ALTERED)
        return LoadedStudy(scan, read_nifti_mask(content, self.mask.name, scan), tuple(warnings))


ALTERED = "the file is not the one that studies.csv lists"
MASK_ALTERED = "the mask is not the one that studies.csv lists"
