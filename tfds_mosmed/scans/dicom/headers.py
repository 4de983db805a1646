"""DICOM headers -> the geometry and acquisition of every CT slice in a folder. Nothing that identifies the patient."""

import collections
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom.errors

from tfds_mosmed.scans import acquisition
from tfds_mosmed.scans.acquisition import Acquisition
from tfds_mosmed.scans.dicom import derivation as derivations
from tfds_mosmed.scans.dicom.derivation import Derivation
from tfds_mosmed.scans.dicom.files import list_files, read_header, silent_pydicom, why_not_to_open
from tfds_mosmed.scans.folders import LEFT_OUT_SUFFIXES, file_suffix
from tfds_mosmed.scans.nifti_header import kind_of
from tfds_mosmed.scans.scan import MIN_SLICES, ScanError, check_grid

# Two patients differ in one of them; the name is spelt in several ways and only counts without a PatientID.
PATIENT_TAGS = ("PatientID", "PatientBirthDate", "PatientSex", "PatientName")
# Attributes in which two stacks of slices under one SeriesInstanceUID may differ -> the sequence of enhanced CT.
STACK_TAGS = {
    **dict.fromkeys((
        "ImageType", "ContrastBolusAgent", "AcquisitionNumber", "FilterType", "TemporalPositionIdentifier",
        "SeriesDescription", "SeriesNumber", "SeriesTime", "AcquisitionTime",
        "AcquisitionDateTime", "AcquisitionDate", "ContrastBolusRoute", "ContrastBolusStartTime", "ContrastBolusVolume",
        "ReconstructionAlgorithm", "IrradiationEventUID", "FrameOfReferenceUID", "ProtocolName", "ImageComments",
        "StationName", "SpiralPitchFactor", "PatientPosition", "FocalSpots", "TriggerTime", "WindowCenter",
        "XRayTubeCurrent", "Exposure", "ContentDate", "ContentTime",
    ), ""),
    "ConvolutionKernel": "CTReconstructionSequence", "ReconstructionDiameter": "CTReconstructionSequence",
    "SliceThickness": "PixelMeasuresSequence", "KVP": "CTXRayDetailsSequence",
    "StackID": "FrameContentSequence", "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence", "FrameReferenceDateTime": "FrameContentSequence",
    "ContrastBolusAgentAdministered": "ContrastBolusUsageSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
}  # fmt: skip
# Of an enhanced CT series in several files.
CONCATENATION_TAGS = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
# Those that may grow from slice to slice.
ORDER_TAGS = ("InstanceNumber", "AcquisitionTime", "ContentTime", "FrameReferenceDateTime")
TAGS = [
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelAspectRatio", "ModalityLUTSequence", "InstanceNumber", "SliceLocation",
    *acquisition.HEADER_TAGS, *STACK_TAGS, *CONCATENATION_TAGS, *derivations.TAGS, *PATIENT_TAGS,
]  # fmt: skip
DERIVATION = "derivation"  # among the attributes
NEEDED_TAGS = {
    "ImageOrientationPatient": ("PlaneOrientationSequence", 6),
    "ImagePositionPatient": ("PlanePositionSequence", 3),
    "PixelSpacing": ("PixelMeasuresSequence", 2),
    "RescaleSlope": ("PixelValueTransformationSequence", 1),
    "RescaleIntercept": ("PixelValueTransformationSequence", 1),
}
# Reasons why a file is not used:
NOT_DICOM = "not in DICOM format"
CUT_SHORT = "cut short"
LOCALIZER = "localizer"
OTHER_MODALITY = "of another modality than CT"
LOCALIZER_TYPE = re.compile(r"\b(?:LOCALIZER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM)\b", re.IGNORECASE)
MIN_PERPENDICULAR = 0.99  # sine of the angle between rows and columns


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
      attributes: STACK_TAGS, CONCATENATION_TAGS, InstanceNumber and SliceLocation as text, "" if unknown; and the sign
        of derivation.
      acquisition: how it was acquired.
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
    acquisition: Acquisition
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


class Unusable(NamedTuple):
    """A file, or a frame of one, that is no CT slice that can be used.

    Attributes:
      file: the file.
      reason: why, without values of the header.
      series: SeriesInstanceUID, "" if unknown.
    """

    file: Path
    reason: str
    series: str = ""


def read_headers(path: Path) -> tuple[list[Slice], list[Unusable]]:
    """Read the headers of all CT slices of one study.

    Args:
      path: a file, or a folder that is searched at any depth. Hidden files and folders are skipped.

    Returns:
      The slices in the order of their files, and what cannot be used.

    Raises:
      ScanError: there are no CT slices, or they belong to several studies; without the study's name.
    """
    found = [header for file in list_files(path) for header in _read_header(file)]
    slices = [one for one in found if isinstance(one, Slice)]
    unusable = [one for one in found if isinstance(one, Unusable)]
    if not slices:
        remedy = "give .nii or .nii.gz files, or folders of DICOM CT slices"
        if any(one.reason != NOT_DICOM for one in unusable):
            raise ScanError(f"holds no CT slice that can be used (of its files: {count_reasons(unusable)}); {remedy}")
        kind = kind_of(unusable[0].file) if unusable else None
        raise ScanError(f"holds no CT slice in DICOM format{f': its first file {kind}' if kind else ''}; {remedy}")
    studies = {header.study for header in slices} - {""}
    _check_not_each("StudyInstanceUID", len(studies), slices)
    if len(studies) > 1:
        raise ScanError(f"holds slices of {len(studies)} studies; give each study a folder of its own")
    _check_patients(slices)
    return slices, unusable


def count_reasons(unusable: Iterable[Unusable]) -> str:
    """Count why files cannot be used: "2 localizer, 1 not in DICOM format"."""
    counts = collections.Counter(one.reason for one in unusable)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _check_not_each(name: str, num_values: int, slices: list[Slice]) -> None:
    """Check that an attribute has not another value in each slice."""
    if num_values == len(slices) >= MIN_SLICES:
        raise ScanError(
            f"has another {name} in each of its {len(slices)} slices, as where each was made anonymous by itself; "
            "export it again with one for all"
        )


def _check_patients(slices: list[Slice]) -> None:
    """Check that no attribute has two values; without the values, which identify the patients."""
    for name, values in zip(PATIENT_TAGS, zip(*(header.patient for header in slices), strict=True), strict=True):
        num_patients = len(set(values) - {""})
        if num_patients > 1 and (name != "PatientName" or not all(header.patient[0] for header in slices)):
            _check_not_each(name, num_patients, slices)
            raise ScanError(
                f"holds slices of {num_patients} patients ({name} differs); give each patient a folder of its own"
            )


def _read_header(file: Path) -> list[Slice | Unusable]:
    """Read the header of a file: one slice per frame, or why it is not a CT image with a position."""
    series = ""
    try:
        if reason := why_not_to_open(file):
            return [Unusable(file, reason)]
        with silent_pydicom():
            header = read_header(file, TAGS)
            series = str(header.get("SeriesInstanceUID") or "")
            if reason := _unusable(header):
                return [Unusable(file, reason, "" if reason == CUT_SHORT else series)]
            num_frames = int(header.get("NumberOfFrames") or 1)
            check_grid((num_frames, max(1, int(header.Rows)), max(1, int(header.Columns))), (), 2)
            num_positions = len(header.get("PerFrameFunctionalGroupsSequence") or [])
            if max(num_frames, num_positions) > 1 and num_positions != num_frames:
                reason = f"with {num_frames} frames and {num_positions} positions (PerFrameFunctionalGroupsSequence)"
                return [Unusable(file, reason, series)]
            return [_read_frame(file, header, frame, series) for frame in range(num_frames)]
    except ScanError:
        raise
    except pydicom.errors.InvalidDicomError:
        suffix = file_suffix(file.name)
        must_unpack = f"{suffix} that must be unpacked or converted"
        return [Unusable(file, must_unpack if suffix in LEFT_OUT_SUFFIXES else NOT_DICOM)]
    except OSError as error:
        raise ScanError(f"holds a file that cannot be read ({error.strerror}); check its permissions") from error
    except Exception:  # whatever a damaged header makes pydicom raise
        return [Unusable(file, "with a damaged header", series)]


def _unusable(header: Any) -> str | None:
    """Return why a file holds no CT slices in its header; without values of the header."""
    sop_class = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or ""
    if "Rows" not in header and "PixelSpacing" not in header and sop_class.startswith(derivations.CT_IMAGE):
        return CUT_SHORT
    if "SOPClassUID" not in header and "Rows" not in header and not header.get("Modality"):
        return NOT_DICOM
    if not header.get("Modality"):
        return "without Modality"
    if str(header.Modality).strip().upper() != "CT":
        return OTHER_MODALITY
    image_type = header.get("ImageType") or ""
    if LOCALIZER_TYPE.search(image_type if isinstance(image_type, str) else " ".join(image_type)):
        return LOCALIZER
    for name in ("Rows", "Columns"):
        if header.get(name) is None:
            return f"without {name}"
    if int(header.get("SamplesPerPixel") or 1) != 1 or "COLOR" in str(header.get("PhotometricInterpretation")):
        return "in colour"
    aspect = header.get("PixelAspectRatio")
    return "with PixelAspectRatio other than 1:1" if aspect and int(aspect[0]) != int(aspect[1]) else None


class _UnusableTagError(Exception):
    """An attribute that is not there or has no usable value."""


def _read_frame(file: Path, header: Any, frame: int, series: str) -> Slice | Unusable:
    try:
        return _parse_slice(file, header, frame)
    except _UnusableTagError as error:
        return Unusable(file, str(error), series)


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

    def numbers(name: str, default: Any = None) -> np.ndarray:
        sequence, count = NEEDED_TAGS[name]
        value = get(name, sequence, default)
        if value is None or value == "":
            raise _UnusableTagError(f"without {name}")
        try:
            array = np.array(value, np.float64).reshape(count)
            if np.isfinite(array).all():
                return array
        except (ValueError, TypeError):
            pass
        raise _UnusableTagError(
            f"with {name} that is not {count} number{'s' * (count > 1)} (with a decimal point, not a comma)"
        )

    def text(name: str, sequence: str = "") -> str:
        value = get(name, sequence, "")
        return "\\".join(
            map(str, [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value)
        ).upper()

    directions = _unit_directions(numbers("ImageOrientationPatient").reshape(2, 3))
    position = numbers("ImagePositionPatient")
    row_mm, column_mm = numbers("PixelSpacing").tolist()
    rescale_tags = ("RescaleSlope", "RescaleIntercept")
    has_rescale = all(get(name, "PixelValueTransformationSequence") is not None for name in rescale_tags)
    if not has_rescale and header.get("ModalityLUTSequence"):
        raise _UnusableTagError("with ModalityLUTSequence in place of RescaleSlope and RescaleIntercept")
    (slope,), (intercept,) = numbers("RescaleSlope", 1).tolist(), numbers("RescaleIntercept", 0).tolist()
    if not slope:
        raise _UnusableTagError("with RescaleSlope 0")
    rescale_type = text("RescaleType", "PixelValueTransformationSequence").strip()
    attributes = {name: text(name, sequence) for name, sequence in STACK_TAGS.items()}
    attributes |= {name: text(name) for name in ("InstanceNumber", "SliceLocation", *CONCATENATION_TAGS)}
    attributes["ImageType"] = text("FrameType", "CTImageFrameTypeSequence") or attributes["ImageType"]
    kernel = get("ConvolutionKernel", "CTReconstructionSequence", "")
    attributes["ConvolutionKernel"] = str(kernel if isinstance(kernel, str) else next(iter(kernel), ""))
    technique = text("VolumeBasedCalculationTechnique", "CTImageFrameTypeSequence")
    derivation = derivations.derivation_of(
        header,
        attributes["ImageType"],
        technique,
        rescale_type,
        get("DerivationCodeSequence", "DerivationImageSequence", ()),
        attributes["SliceThickness"],
    )
    attributes[DERIVATION] = derivation.sign
    patient = tuple(_identifying(header, name) for name in PATIENT_TAGS)
    return Slice(
        file=file,
        frame=frame,
        study=str(header.get("StudyInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        patient=patient,
        derivation=derivation,
        attributes=attributes,
        acquisition=acquisition.of_header(header, attributes, patient[0]),
        has_rescale=has_rescale,
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        directions=directions,
        pixel_mm=(row_mm, column_mm),
        slope=slope,
        intercept=intercept,
    )


def _identifying(header: Any, name: str) -> str:
    """Return an attribute that identifies the patient, always spelt in one way."""
    return " ".join(str(header.get(name) or "").replace("^", " ").upper().split())


def patient_pseudonym(header: Any) -> str:
    """Return the pseudonym of a header's PatientID, as `Acquisition.patient`; "" without one."""
    return acquisition.pseudonym("patient", _identifying(header, "PatientID"))


def _unit_directions(directions: np.ndarray) -> np.ndarray:
    """Return (2, 3) directions as unit vectors, which some programs do not write."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if (lengths > 0).all() and np.isfinite(lengths).all():
        unit = directions / lengths
        if np.linalg.norm(np.cross(*unit)) >= MIN_PERPENDICULAR:
            return unit
    raise _UnusableTagError("with ImageOrientationPatient that is not two perpendicular directions")
