"""Search for MosMedData's studies and masks in folders and archives, and comparison with the public list."""

import csv
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tfds_mosmed import storage
from tfds_mosmed.building.study import FileStudy, SourceFile
from tfds_mosmed.errors import UserError
from tfds_mosmed.progress import Progress
from tfds_mosmed.scans.archive import ZIP_ERRORS
from tfds_mosmed.scans.folders import count_left_out, is_hidden, walk
from tfds_mosmed.scans.nifti import is_nifti_name
from tfds_mosmed.scans.scan import MAX_BYTES

CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
POOLED = "CT-23"  # the public sample's folder of CT-2 and CT-3
VOLUME = re.compile(r"(?:^|/)([^/.][^/]*)/(study_\d+)\.nii(?:\.gz)?$")
MASK = re.compile(r"(?:^|/)(study_\d+)_mask\.nii(?:\.gz)?$")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_RATIO = 50  # of the size of what a compressed archive holds to its own: of CT it is below 10
BLOCK_BYTES = 1 << 24
MAX_DEPTH = 4  # ROOT/COVID19_1110/studies/CT-0


class Listed(NamedTuple):
    """Row of studies.csv; see the data set's README."""

    study_id: str
    category: str
    num_slices: str
    volume_git_blob_sha1: str
    mask_git_blob_sha1: str
    covidnet3d_split: str


def read_list() -> dict[str, Listed]:
    """Read studies.csv: study id -> its row."""
    with Path(__file__).with_name("studies.csv").open(newline="") as file:
        return {row["study_id"]: Listed(**row) for row in csv.DictReader(file)}


def find_files(root: Path, unpacked: Path) -> Iterator[tuple[str, SourceFile]]:
    """Yield the files below a folder, and those in the archives there, with their names.

    Args:
      root: the folder. For a folder "studies", the folder "masks" beside it is searched, too.
      unpacked: folder for the studies of compressed tar archives, which do not allow random access.

    Yields:
      Names with "/" between their parts, and the files: first those in folders, then those in archives.
    """
    archives, above = [], Path(os.path.abspath(root))
    beside = [above.parent / "masks"] if above.name.lower() == "studies" else []
    for folder in (root, *beside):
        for name, path in _walk(folder):
            if path.name.lower().endswith(ARCHIVES):
                archives.append(path)
            else:
                yield name, SourceFile(path)
    for path in archives:
        yield from archive_files(path, unpacked)


def archive_files(path: Path, unpacked: Path) -> Iterator[tuple[str, SourceFile]]:
    """Yield the files in an archive with their names; see `find_files`."""
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        yield member.filename, SourceFile(path, member.filename, size=member.file_size)
        elif path.name.lower().endswith(".tar"):
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        _check_size(path, member)
                        yield member.name, SourceFile(path, member.name, member.offset_data, member.size)
        else:
            yield from ((name, SourceFile(file)) for name, file in _walk(_unpack(path, unpacked)))
    except UserError:
        raise
    except (tarfile.TarError, *ZIP_ERRORS) as error:
        raise UserError(f"{path}: is not a whole archive ({error}); download it again") from error
    except OSError as error:
        if error.errno is None:  # raised by gzip and bz2
            raise UserError(f"{path}: is not a whole archive ({error}); download it again") from error
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from error


def _unpack(path: Path, folder: Path) -> Path:
    """Unpack the studies and masks of a compressed tar archive, unless that was done before; ignore other members."""
    status = path.stat()
    target = folder / f"{path.name}-{status.st_size}-{status.st_mtime_ns}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    free, megabytes = max(MAX_BYTES, MAX_RATIO * status.st_size), 0
    with (
        storage.partial_folder(folder) as partial,
        path.open("rb") as file,
        tarfile.open(fileobj=file, mode="r|*") as archive,
        Progress(f"Unpacking {path.name}", status.st_size // 1_000_000, unit="MB") as progress,
    ):
        for member in archive:
            progress.advance(file.tell() // 1_000_000 - megabytes)
            megabytes = file.tell() // 1_000_000
            match = VOLUME.search(member.name) or MASK.search(member.name)
            content = archive.extractfile(member) if match and member.isfile() else None
            if match and content:
                _check_size(path, member)
                free -= member.size
                if free < 0:
                    raise UserError(
                        f"{path}: takes more than {MAX_RATIO} times its size unpacked, which studies do not; download "
                        "it again, or unpack it and give the folder"
                    )
                # The matched end of the name, such as CT-0/study_0001.nii.gz, cannot lead out of the folder.
                _copy(content, Path(partial, "whole", match[0].lstrip("/")), folder)
        Path(partial, "whole").mkdir(exist_ok=True)
        storage.sync_tree(partial)
        Path(partial, "whole").rename(target)
        storage.sync(folder)
    return target


def _check_size(path: Path, member: tarfile.TarInfo) -> None:
    """Check that a member of an archive can be a study, whatever it takes when it is unpacked."""
    if (VOLUME.search(member.name) or MASK.search(member.name)) and (member.size > MAX_BYTES or member.issparse()):
        raise UserError(
            f"{path}: {member.name} takes {member.size >> 20} MiB unpacked, or is sparse, as no chest CT is; remove it "
            "from the archive, or unpack that and give the folder"
        )


def _copy(content: IO[bytes], file: Path, folder: Path) -> None:
    """Write a member of an archive to a file; an error of writing names the folder, one of reading is passed on."""
    while block := content.read(BLOCK_BYTES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as copy:
                copy.write(block)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); make room there or give another --data_dir"
            ) from error


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, names in walk(root, _raise_unlisted, MAX_DEPTH) if root.is_dir() else ():
        below = Path(folder).relative_to(root)
        yield from ((f"{root.name}/{(below / name).as_posix()}", Path(folder, name)) for name in names)


def _raise_unlisted(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error


def match_studies(
    files: Iterator[tuple[str, SourceFile]], listed: dict[str, Listed]
) -> tuple[list[FileStudy], dict[str, int]]:
    """Return the studies among files.

    Args:
      files: names and files.
      listed: rows of studies.csv by study id.

    Returns:
      The studies, in the order of their ids; a study that is found twice, as in an archive and in the folder unpacked
      from it, is taken once. And the number of other files that may hold studies, by suffix.

    Raises:
      UserError: for a folder that is not a category, or a study in two categories.
    """
    volumes: dict[str, tuple[str, SourceFile]] = {}
    masks: dict[str, SourceFile] = {}
    others = []
    for name, file in files:
        if mask := MASK.search(name):
            masks.setdefault(mask[1], file)
        elif volume := VOLUME.search(name):
            category, study_id = _category(volume[1], volume[2], file, listed), volume[2]
            first, _ = volumes.setdefault(study_id, (category, file))
            if first != category:
                raise UserError(f"{file.name}: {study_id} is in {first}, too; keep the one in the right folder")
        elif not any(map(is_hidden, name.split("/"))):
            others.append(name)
    num_nifti = sum(map(is_nifti_name, others))
    counts = {"NIfTI files of other names": num_nifti, "masks without a study": len(masks.keys() - volumes.keys())}
    left_out = count_left_out(others) | {kind: count for kind, count in counts.items() if count}
    studies = [
        FileStudy(
            study_id,
            category,
            file,
            mask=masks.get(study_id),
            volume_sha1=listed[study_id].volume_git_blob_sha1 if study_id in listed else None,
            mask_sha1=listed[study_id].mask_git_blob_sha1 or None if study_id in listed else None,
        )
        for study_id, (category, file) in sorted(volumes.items())
    ]
    return studies, left_out


def _category(folder: str, study_id: str, file: SourceFile, listed: dict[str, Listed]) -> str:
    if folder in CATEGORIES:
        return folder
    if folder == POOLED:
        if study_id not in listed:
            raise UserError(f"{file.name}: studies.csv does not list {study_id}, so its category is unknown; remove it")
        return listed[study_id].category
    raise UserError(
        f"{file.name}: {folder!r} is not one of {', '.join(CATEGORIES)}; move the study to its category's folder"
    )


def compare(studies: list[FileStudy], listed: dict[str, Listed], expected: int) -> dict[str, int]:
    """Count the studies that differ from studies.csv before any is read: missing, extra, in another category."""
    extra = sum(study.study_id not in listed for study in studies)
    moved = sum(study.study_id in listed and listed[study.study_id].category != study.category for study in studies)
    return {"missing": max(0, expected - (len(studies) - extra)), "extra": extra, "other_category": moved}


def describe(counts: dict[str, int], total: int) -> str:
    """Describe in one line the counts of `compare`, and those of reading the studies."""
    words = {
        "missing": "missing", "extra": "not listed", "other_category": "in another category than listed",
        "altered": "not the listed file", "masks_altered": "with a mask that is not the listed one",
        "unreadable": "left out as unusable",
    }  # fmt: skip
    parts = [f"{counts[key]} {word}" for key, word in words.items() if counts.get(key)]
    return f"{total} studies against studies.csv: " + (", ".join(parts) or "all as listed")
