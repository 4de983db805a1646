"""Signs in a DICOM header that a picture is not an original CT slice but was made from such slices."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

# Pixels that are no HU of one slice: projections, averages, maps of dual energy and of perfusion, differences.
NOT_HU = re.compile(
    r"\bMIP|MIPS?\b|\b(?:M|MIN|MAX|AVE?|AVG|MEAN|SUM|RAY) ?IPS?\b|\bAVERAGE|\bAVG\b|\bAIP\b|\bRAY ?SUM|\bPROJECTION"
    r"|\b(?:MAXIMUM|MINIMUM)\b(?! (?:IN|EX)SP)|\bMEAN\b|\bST(?:D|ANDARD) DEV|\bRENDER|\bVRT\b|\bADDITION\b|SUBTRACT"
    r"|\bDIFFERENCE|\bDIVISION|\bMULTIPLICATION|\bQUANTITY|IODINE|\bPERFUSION|\bVENTILAT|\bBLOOD ?VOL|\bPBV\b|\bZ ?EFF"
    r"|\bEFF(?:ECTIVE)? ?Z\b|\bRHO\b|\bELECTRON DENSITY\b|\bOVERLAY|\bFUSION|\bFUSED|\bCOLOU?R|\bMAPS?\b|\bMEDIAN\b"
    r"|\bDIFF\b|\bMITTELW|\bMOYENN|\bМИП\b|\bПРОЕКЦ|\bУСРЕДН|投影"
)
# Pictures in HU that a workstation computed, and results that it drew.
PROCESSED = re.compile(
    r"\bMPRS?\b|\bREFORMAT|\bMULTI ?PLANAR|\bCURVED|\bSLABS?\b|\bMONO(?!CHROME)|\bKE ?V\b|\bVIRTU[AE]L"
    r"|\bV(?:NC|UE|NCA|NI)\b|\bSYNTHETIC|\bSEGMENT|\bRESULT|\bFINDING|\bANNOTAT|\bSCREEN ?(?:SHOT|SAVE)|\bCAPTURE"
    r"|\bREGISTERED\b|\bRESAMPL|\bDENOIS|\bSUPPRESS|\bREMOV"
)
HU_RESCALE_TYPE = re.compile(r"HU|US|HOUNSFIELD.*|")
MAX_THICKNESS_MM = 10.5
MODIFIED_HU = "HU_MOD"  # of dual energy
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and what begins so, for several frames
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"  # likewise
LOSSY_COMPRESSION = "113040"
# Of the code scheme DCM: addition, division, mask, maximum, mean, minimum, multiplication, standard deviation,
# subtraction, volume and surface rendering, segmentation, projections of maximum and minimum intensity.
NOT_HU_CODES = (
    "113042", "113046", "113047", "113048", "113049", "113051", "113053", "113063", "113064", "113074", "113075",
    "113076", "113078", "113079",
)  # fmt: skip
FREE_TEXTS = ("SeriesDescription", "DerivationDescription", "ImageComments")
TAGS = (
    *FREE_TEXTS, "ProtocolName", "ImageType", "SOPClassUID", "RescaleType", "DerivationCodeSequence",
    "SourceImageSequence", "BurnedInAnnotation", "LossyImageCompression", "VolumeBasedCalculationTechnique",
)  # fmt: skip


class Derivation(NamedTuple):
    """Distance of a picture from an original one.

    Attributes:
      degree: 0 for an original picture, 1 for a derived one, 2 for a secondary one (a reformat) or one whose free text
        names a projection, 3 for a projection or a map of something else than HU.
      sign: attribute that says so, "" for an original picture.
    """

    degree: int = 0
    sign: str = ""


NOT_A_PICTURE = 3  # `Derivation.degree`


def derivation_of(
    header: Any, image_type: str, technique: str, rescale_type: str, codes: Iterable[Any] = (), thickness_mm: str = ""
) -> Derivation:
    """Return the most derived of what the attributes of a frame tell.

    Args:
      header: the dataset of the file.
      image_type: ImageType, or FrameType of the frame, its values parted by backslashes.
      technique: VolumeBasedCalculationTechnique of the frame.
      rescale_type: RescaleType of the frame.
      codes: DerivationCodeSequence of the frame.
      thickness_mm: SliceThickness of the frame, as text.
    """
    signs = [
        _of_image_type(image_type),
        Derivation(NOT_A_PICTURE if NOT_HU.search(_words(technique)) else 0, "VolumeBasedCalculationTechnique"),
        Derivation(_degree_of_rescale_type(rescale_type), "RescaleType"),
        Derivation(_degree_of_codes(codes), "DerivationCodeSequence"),
        Derivation(2 if _is_slab(thickness_mm) else 0, "SliceThickness"),
        Derivation(2 if str(header.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) else 0, "SOPClassUID"),
        *(Derivation(2 if _is_processed(header.get(name)) else 0, name) for name in FREE_TEXTS),
        Derivation(2 if _is_yes(header.get("BurnedInAnnotation")) else 0, "BurnedInAnnotation"),
        Derivation(int(_has_source_slices(header.get("SourceImageSequence") or ())), "SourceImageSequence"),
        Derivation(int(bool(header.get("DerivationDescription"))), "DerivationDescription"),
        # The original series has it too.
        Derivation(int(_is_processed(header.get("ProtocolName"))), "ProtocolName"),
        Derivation(int(_is_yes(header.get("LossyImageCompression"))), "LossyImageCompression"),
    ]
    most = max(signs, key=lambda one: one.degree)
    return most if most.degree else Derivation()


def _words(text: str) -> str:
    """Write the words of a text in capitals with a space between, as in "AX MIP" of AX_MIP, axMIP or ax-MIP8."""
    return re.sub(r"[\W\d_]+", " ", re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", text)).upper()


def _is_processed(text: Any) -> bool:
    words = _words(str(text or ""))
    return bool(NOT_HU.search(words) or PROCESSED.search(words))


def _is_yes(value: Any) -> bool:
    return str(value or "").strip().upper() in ("YES", "01", "1")


def _of_image_type(image_type: str) -> Derivation:
    values = [value.strip() for value in image_type.upper().split("\\")]
    words = _words(image_type.upper())
    if NOT_HU.search(words):
        return Derivation(NOT_A_PICTURE, "ImageType")
    if "SECONDARY" in values[:2] or PROCESSED.search(words):
        return Derivation(2, "ImageType")
    return Derivation(int(values[0] == "DERIVED"), "ImageType")


def _degree_of_rescale_type(rescale_type: str) -> int:
    if rescale_type == MODIFIED_HU:
        return 2
    return 0 if HU_RESCALE_TYPE.fullmatch(rescale_type) else NOT_A_PICTURE


def _is_slab(thickness_mm: str) -> bool:
    """Return whether a slice is thicker than scanners reconstruct them."""
    try:
        return float(thickness_mm) > MAX_THICKNESS_MM
    except ValueError:
        return False


def _degree_of_codes(codes: Iterable[Any]) -> int:
    """Return the degree of DerivationCodeSequence; lossy compression is told by an attribute of its own."""
    degree = 0
    for code in codes:
        value, meaning = str(code.get("CodeValue") or "").strip(), _words(str(code.get("CodeMeaning") or ""))
        if value in NOT_HU_CODES or NOT_HU.search(meaning):
            return NOT_A_PICTURE
        if value != LOSSY_COMPRESSION:
            degree = 2 if PROCESSED.search(meaning) else max(degree, 1)
    return degree


def _has_source_slices(sources: Iterable[Any]) -> bool:
    """Return whether CT slices are named as the source; some scanners name their raw data."""
    return any(str(one.get("ReferencedSOPClassUID") or CT_IMAGE).startswith(CT_IMAGE) for one in sources)
