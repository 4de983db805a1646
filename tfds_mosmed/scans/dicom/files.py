"""Files that may be DICOM: their listing, and reading them without trust in their headers."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pydicom.errors
from pydicom import config, filereader
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tfds_mosmed.scans.folders import walk
from tfds_mosmed.scans.scan import MAX_BYTES, ScanError

MAX_FILES = 20_000
MAX_FILE_BYTES = 2 * MAX_BYTES
HEAD_BYTES = 2**17  # usually the whole header; zeros in its place are read 8 bytes at a time, whatever their number
PIXELS_GROUP = 0x7FE00000
OF_DICOM = ("SOPClassUID", "StudyInstanceUID", "Modality")  # one of them shows what a file without preamble is


@contextlib.contextmanager
def silent_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings and logs: they quote unexpected values, which may identify the patient."""
    disabled, config.logger.disabled = config.logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.logger.disabled = disabled


def list_files(path: Path) -> list[Path]:
    """List a file, or the files of a folder at any depth, sorted, without hidden ones. Raises ScanError."""
    try:
        if path.is_dir():
            files = [Path(folder, name) for folder, names in walk(path, _fail) for name in names]
            if len(files) > MAX_FILES:
                raise ScanError(f"holds {len(files)} files; give the folder of one series")
            return sorted(files)
        if not path.exists():
            raise ScanError("does not exist; check the path")
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror}); check its permissions") from error
    if not path.is_file():
        raise ScanError("is not a regular file; give a file or a folder")
    return [path]


def _fail(error: OSError) -> None:
    raise error


def why_not_to_open(file: Path) -> str | None:
    """Return why a file must not be read, which could take any time or memory; None if it may be."""
    if not file.is_file():
        return "no regular file, or a broken link"
    return f"larger than {MAX_FILE_BYTES >> 30} GiB" if file.stat().st_size > MAX_FILE_BYTES else None


def read_header(file: Path, tags: Sequence[str]) -> pydicom.FileDataset:
    """Read some attributes of a DICOM file, also of one without preamble or without file meta information."""
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
        if DeflatedExplicitVRLittleEndian.encode() not in head[:2048]:
            header = read_dataset(io.BytesIO(head), tags)
            is_whole = len(head) < HEAD_BYTES or ("ImagePositionPatient" in header and "NumberOfFrames" not in header)
            if is_whole or "SOPClassUID" not in header:
                return header
        opened.seek(0)
        return read_dataset(opened, tags)


def read_dataset(file: Any, tags: Sequence[str] | None = None) -> pydicom.FileDataset:
    """Read an open DICOM file, also one without preamble or without file meta information.

    Args:
      file: the open file.
      tags: attributes to read; None for all, with the pixels. Without a preamble one of OF_DICOM is needed.
    """
    options: dict[str, Any] = (
        {} if tags is None else {"stop_when": _is_beyond_header, "specific_tags": [Tag(tag) for tag in tags]}
    )
    try:
        dataset = filereader.read_partial(file, **options)
    except pydicom.errors.InvalidDicomError:
        file.seek(0)
        dataset = filereader.read_partial(file, force=True, **options)
        if not any(tag in dataset for tag in OF_DICOM):
            raise
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return dataset  # type: ignore[return-value]


def _is_beyond_header(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >= PIXELS_GROUP or tag == 0  # zeros in place of elements
