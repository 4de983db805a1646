"""DICOM headers -> the geometry and acquisition of every CT slice in a folder. Nothing that identifies the patient."""

import collections
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pydicom.errors
from pydicom import config
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tfds_mosmed.scans import dicom_derivation
from tfds_mosmed.scans.dicom_derivation import Derivation
from tfds_mosmed.scans.folders import LEFT_OUT_SUFFIXES, file_suffix, walk
from tfds_mosmed.scans.scan import ScanError, check_grid

# Two patients differ in one of them; the name is spelt in several ways and only counts without a PatientID.
PATIENT_TAGS = ("PatientID", "PatientBirthDate", "PatientSex", "PatientName")
TAGS = [
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "ConvolutionKernel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SamplesPerPixel",
    "FrameOfReferenceUID", "AcquisitionNumber", "ContrastBolusAgent", "SliceThickness", *dicom_derivation.TAGS,
    "KVP", "FilterType", "ReconstructionDiameter", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase",
    "SeriesNumber", "SeriesTime", "AcquisitionTime", "AcquisitionDateTime", *PATIENT_TAGS,
]  # fmt: skip
# Attributes in which two stacks of slices under one SeriesInstanceUID may differ -> the sequence of enhanced CT.
STACK_TAGS = {
    "ImageType": "",
    "ConvolutionKernel": "CTReconstructionSequence",
    "ContrastBolusAgent": "",
    "AcquisitionNumber": "",
    "SliceThickness": "PixelMeasuresSequence",
    "KVP": "CTXRayDetailsSequence",
    "FilterType": "",
    "ReconstructionDiameter": "CTReconstructionSequence",
    "TemporalPositionIdentifier": "",
    "NominalPercentageOfCardiacPhase": "",
    "SeriesDescription": "",
    "SeriesNumber": "",
    "SeriesTime": "",
    "AcquisitionTime": "",
    "AcquisitionDateTime": "",
}
NEEDED_TAGS = {
    "ImageOrientationPatient": ("PlaneOrientationSequence", 6),
    "ImagePositionPatient": ("PlanePositionSequence", 3),
    "PixelSpacing": ("PixelMeasuresSequence", 2),
}
NOT_DICOM = "not in DICOM format"
MAX_FILES = 20_000


class Slice(NamedTuple):
    """Header of one slice: a file, or a frame of a multi-frame file.

    Attributes:
      file: that holds its pixels.
      frame: index in the file.
      study: StudyInstanceUID.
      series: SeriesInstanceUID.
      frame_of_reference: FrameOfReferenceUID.
      patient: PATIENT_TAGS, "" if unknown. Never shown.
      derivation: how far it is from an original picture.
      attributes: STACK_TAGS, as text, "" if unknown.
      has_rescale: whether it has RescaleSlope and RescaleIntercept.
      shape: (rows, columns).
      position: (3,) mm of the first pixel's centre, to the patient's left, back and head.
      directions: (2, 3) unit vectors along a row and down a column, in the same axes.
      pixel_mm: distance between rows, between columns.
      slope: HU = stored value x slope + intercept.
      intercept: likewise.
    """

    file: Path
    frame: int
    study: str
    series: str
    frame_of_reference: str
    patient: tuple[str, ...]
    derivation: Derivation
    attributes: dict[str, str]
    has_rescale: bool
    shape: tuple[int, int]
    position: np.ndarray
    directions: np.ndarray
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float

    @property
    def kernel(self) -> str:
        """ConvolutionKernel, "" if unknown."""
        return self.attributes["ConvolutionKernel"]

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector perpendicular to the slice."""
        return np.cross(*self.directions)


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


def read_headers(path: Path) -> tuple[list[Slice], list[str]]:
    """Read the headers of all CT slices of one study.

    Args:
      path: a file, or a folder that is searched at any depth. Hidden files and folders are skipped.

    Returns:
      The slices in the order of their files, and warnings.

    Raises:
      ScanError: there are no CT slices, or they belong to several studies; without the study's name.
    """
    try:
        files = _list_files(path)
        if not path.exists():
            raise ScanError("does not exist; check the path")
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror}); check its permissions") from error
    if len(files) > MAX_FILES:
        raise ScanError(f"holds {len(files)} files; give the folder of one series")
    slices: list[Slice] = []
    ignored: collections.Counter[str] = collections.Counter()
    for file in files:
        of_file = _read_header(file)
        if isinstance(of_file, str):
            ignored[of_file] += 1
        else:
            slices += of_file
    why = ", ".join(f"{count} {reason}" for reason, count in ignored.most_common())
    if not slices:
        remedy = "give .nii or .nii.gz files, or folders of DICOM CT slices"
        if set(ignored) - {NOT_DICOM}:
            raise ScanError(f"holds no CT slice that can be used (of its files: {why}); {remedy}")
        raise ScanError(f"holds no CT slice in DICOM format; {remedy}")
    studies = {header.study for header in slices}
    if len(studies) > 1:
        raise ScanError(f"holds slices of {len(studies)} studies; give each study a folder of its own")
    _check_patients(slices)
    return slices, [f"ignored {ignored.total()} files that are not CT slices ({why})"] if ignored else []


def _check_patients(slices: list[Slice]) -> None:
    """Check that no attribute has two values; without the values, which identify the patients."""
    for name, values in zip(PATIENT_TAGS, zip(*(header.patient for header in slices), strict=True), strict=True):
        num_patients = len(set(values) - {""})
        if num_patients > 1 and (name != "PatientName" or not all(header.patient[0] for header in slices)):
            raise ScanError(
                f"holds slices of {num_patients} patients ({name} differs); give each patient a folder of its own"
            )


def _list_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> None:
        raise error

    files = [Path(folder, name) for folder, names in walk(path, fail) for name in names]
    return sorted(file for file in files if file.is_file())


def read_dataset(file: Any, **kwargs: Any) -> pydicom.FileDataset:
    """Read a DICOM file, also one without preamble or without file meta information."""
    try:
        dataset = pydicom.dcmread(file, **kwargs)
    except pydicom.errors.InvalidDicomError:
        if hasattr(file, "seek"):
            file.seek(0)
        dataset = pydicom.dcmread(file, force=True, **kwargs)
        if not ("SOPClassUID" in dataset or "StudyInstanceUID" in dataset or "Modality" in dataset):
            raise
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return dataset


def _read_header(file: Path) -> list[Slice] | str:
    """Read the header of a file: one slice per frame, or why it is not a CT image with a position."""
    try:
        with silent_pydicom():
            header = read_dataset(file, stop_before_pixels=True, specific_tags=list(TAGS))
            if reason := _unusable(header):
                return reason
            num_frames = int(header.get("NumberOfFrames") or 1)
            check_grid((num_frames, max(1, int(header.Rows)), max(1, int(header.Columns))), (), 2)
            if num_frames > 1 and len(header.get("PerFrameFunctionalGroupsSequence") or []) != num_frames:
                return "multi-frame without the positions of its frames (PerFrameFunctionalGroupsSequence)"
            return [_parse_slice(file, header, frame) for frame in range(num_frames)]
    except _UnusableTagError as error:
        return str(error)
    except ScanError:
        raise
    except pydicom.errors.InvalidDicomError:
        suffix = file_suffix(file.name)
        return f"{suffix} that must be unpacked or converted" if suffix in LEFT_OUT_SUFFIXES else NOT_DICOM
    except OSError as error:
        raise ScanError(f"holds a file that cannot be read ({error.strerror}); check its permissions") from error
    except Exception:  # whatever a damaged header makes pydicom raise
        return "with a damaged header"


def _unusable(header: Any) -> str | None:
    """Return why a file holds no CT slices in its header; without values of the header."""
    if "SOPClassUID" not in header and "Rows" not in header and not header.get("Modality"):
        return NOT_DICOM
    if not header.get("Modality"):
        return "without Modality"
    if header.Modality != "CT":
        return "of another modality than CT"
    if "LOCALIZER" in (header.get("ImageType") or []):
        return "localizer"
    for name in ("Rows", "Columns"):
        if header.get(name) is None:
            return f"without {name}"
    return "in colour" if int(header.get("SamplesPerPixel") or 1) != 1 else None


class _UnusableTagError(Exception):
    """An attribute that is not there or has no usable value."""


def _parse_slice(file: Path, header: Any, frame: int) -> Slice:
    """Parse the attributes of a frame, which in enhanced CT are in functional groups, per frame or shared."""
    groups = [*(header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]]
    groups += [*(header.get("SharedFunctionalGroupsSequence") or [])][::-1]

    def get(name: str, sequence: str, default: Any = None) -> Any:
        for group in groups:
            value = (group.get(sequence) or [{}])[0].get(name)
            if value is not None:
                return value
        value = header.get(name)
        return default if value is None else value

    def numbers(name: str) -> np.ndarray:
        sequence, count = NEEDED_TAGS[name]
        try:
            value = get(name, sequence)
            if value is None or value == "":
                raise _UnusableTagError(f"without {name}")
            return np.array(value, np.float64).reshape(count)
        except (ValueError, TypeError) as error:
            raise _UnusableTagError(
                f"with {name} that is not {count} numbers (with a decimal point, not a comma)"
            ) from error

    def text(name: str, sequence: str = "") -> str:
        value = get(name, sequence, "")
        return "\\".join(
            map(str, [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value)
        ).upper()

    directions = numbers("ImageOrientationPatient").reshape(2, 3)
    position = numbers("ImagePositionPatient")
    row_mm, column_mm = numbers("PixelSpacing").tolist()
    slope = float(get("RescaleSlope", "PixelValueTransformationSequence", 1))
    intercept = float(get("RescaleIntercept", "PixelValueTransformationSequence", 0))
    rescale_tags = ("RescaleSlope", "RescaleIntercept")
    rescale_type = text("RescaleType", "PixelValueTransformationSequence").strip()
    if not np.isfinite([*directions.flat, *position, row_mm, column_mm, slope, intercept]).all():
        raise ValueError("not finite")
    attributes = {name: text(name, sequence) for name, sequence in STACK_TAGS.items()}
    attributes["ImageType"] = text("FrameType", "CTImageFrameTypeSequence") or attributes["ImageType"]
    kernel = get("ConvolutionKernel", "CTReconstructionSequence", "")
    attributes["ConvolutionKernel"] = str(kernel if isinstance(kernel, str) else next(iter(kernel), ""))
    technique = text("VolumeBasedCalculationTechnique", "CTImageFrameTypeSequence")
    return Slice(
        file=file,
        frame=frame,
        study=str(header.get("StudyInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        patient=tuple(" ".join(str(header.get(name) or "").replace("^", " ").upper().split()) for name in PATIENT_TAGS),
        derivation=dicom_derivation.derivation_of(header, attributes["ImageType"], technique, rescale_type),
        attributes=attributes,
        has_rescale=all(get(name, "PixelValueTransformationSequence") is not None for name in rescale_tags),
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        directions=directions,
        pixel_mm=(row_mm, column_mm),
        slope=slope,
        intercept=intercept,
    )
