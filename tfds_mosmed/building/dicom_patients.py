"""Patients of DICOM studies, from a header each, before the studies are read."""

import collections
import dataclasses
import io
import itertools
import logging
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfds_mosmed.building.patients import tell_apart
from tfds_mosmed.building.study import FileStudy, Study
from tfds_mosmed.cores import usable_cores
from tfds_mosmed.scans.archive import ZIP_ERRORS, images_in, is_zip_name
from tfds_mosmed.scans.folders import walk

MOST_TRIED = 20  # files of a study that may be none of DICOM
MOST_STUDIES = 10  # of a patient whom a folder tells
HEAD_BYTES = 2**17  # usually the whole header


def add_patients(studies: Sequence[Study]) -> list[Study]:
    """Add pseudonyms of PatientID to DICOM studies; a table's patients stay, those that folders tell do not.

    Studies without a PatientID that are in a folder with those of one patient are of that patient.
    """
    read = [
        study
        for study in studies
        if isinstance(study, FileStudy) and isinstance(study.source, Path) and not (study.listed and study.patient)
    ]
    if not read:
        _warn_of_folder([study for study in studies if isinstance(study, FileStudy)])
        return list(studies)
    from tfds_mosmed.scans.dicom.files import silent_pydicom  # imports pydicom

    with silent_pydicom(), ThreadPoolExecutor(usable_cores()) as threads:
        # What anonymisers write into all studies tells less than a folder.
        found = tell_apart(list(threads.map(_patient_of, (study.source for study in read))))
    told = {study.study_id: patient for study, patient in zip(read, found, strict=True) if patient}
    in_folder: dict[str, set[str]] = collections.defaultdict(set)
    for study in read:
        in_folder[study.patient] |= {told[study.study_id]} if study.study_id in told else set()
    added: list[Study] = []
    for study in studies:
        if isinstance(study, FileStudy) and not (study.listed and study.patient):
            only = in_folder[study.patient] if study.patient and len(in_folder[study.patient]) == 1 else {study.patient}
            study = dataclasses.replace(study, patient=told.get(study.study_id) or next(iter(only)))
        added.append(study)
    _warn_of_folder([study for study in added if isinstance(study, FileStudy) and study.study_id not in told])
    return added


def _warn_of_folder(studies: Sequence[FileStudy]) -> None:
    """Warn if the studies of a folder, which tells their patient, are more than one patient has."""
    of_folder = collections.Counter(study.patient for study in studies if study.patient and not study.listed)
    for patient, count in of_folder.most_common(1):
        if count > MOST_STUDIES:
            first = next(study.study_id for study in studies if study.patient == patient)
            logging.getLogger(__name__).warning(
                "%s and %d more in its folder have no PatientID and are taken for studies of one patient: if they are "
                "of several, give a table with a column patient (--dataset=ct_table/…)", first, count - 1
            )  # fmt: skip


def _patient_of(source: Path) -> str:
    """Return the pseudonym of a study's patient; "" if it is no DICOM study, has none, or cannot be read."""
    from tfds_mosmed.scans.dicom.files import OF_DICOM, read_dataset
    from tfds_mosmed.scans.dicom.headers import patient_pseudonym

    for head in itertools.islice(_heads(source), MOST_TRIED):
        try:
            header = read_dataset(io.BytesIO(head), ["PatientID", *OF_DICOM])
        except Exception:  # whatever a damaged header makes pydicom raise
            continue
        return patient_pseudonym(header)
    return ""


def _heads(source: Path) -> Iterator[bytes]:
    """Yield the first bytes of the files of a study: of a folder, an archive, or one file."""
    try:
        if is_zip_name(source.name) and source.is_file():
            with zipfile.ZipFile(source) as archive:
                for member in images_in(archive):
                    with archive.open(member) as file:
                        yield file.read(HEAD_BYTES)
            return
        files = [source]
        if source.is_dir():
            files = (Path(folder, name) for folder, names in walk(source, lambda _: None) for name in names)
        for path in files:
            if path.is_file() and path.name.upper() != "DICOMDIR":
                with path.open("rb") as file:
                    yield file.read(HEAD_BYTES)
    except (OSError, *ZIP_ERRORS):
        return  # the reader reports it
