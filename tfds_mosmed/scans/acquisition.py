"""Acquisition of a study, as far as its files tell, without anything that names the patient or the hospital."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

HEADER_TAGS = ("Manufacturer", "ManufacturerModelName", "InstitutionName")
CONTRAST_TAGS = (
    "ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusStartTime", "ContrastBolusAgentAdministered",
)  # fmt: skip
# What programs write into them where no agent was given.
NO_AGENTS = ("", "NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "NATIVE", "0", "N/A", "NA", "UNKNOWN")
GIVEN, NOT_STATED = "given", "none stated"


class Acquisition(NamedTuple):
    """Acquisition of a study; "" for what its files do not tell.

    Attributes:
      file_format: "DICOM" or "NIfTI".
      patient: pseudonym made of PatientID, the same in all data sets.
      site: pseudonym made of InstitutionName.
      scanner: manufacturer and model.
      kernel: ConvolutionKernel.
      contrast: whether a contrast agent was given: "given", or "none stated" in a DICOM header that names none.
    """

    file_format: str = ""
    patient: str = ""
    site: str = ""
    scanner: str = ""
    kernel: str = ""
    contrast: str = ""


UNKNOWN = Acquisition()


def pseudonym(kind: str, name: str) -> str:
    """Return a pseudonym made of a hash, which cannot be turned back but can be checked against a list of names.

    Args:
      kind: what the name is of.
      name: "" has the pseudonym "".
    """
    return f"{kind}-{hashlib.sha256(f'{kind}:{name}'.encode()).hexdigest()[:12]}" if name else ""


def of_header(header: Any, attributes: Mapping[str, str], patient_id: str) -> Acquisition:
    """Return the acquisition that a DICOM header tells.

    Args:
      header: the dataset, with HEADER_TAGS.
      attributes: of the frame, as text, among them ConvolutionKernel and CONTRAST_TAGS, in capitals.
      patient_id: PatientID, always spelt in one way.
    """
    maker, model, institution = (" ".join(str(header.get(name) or "").split()) for name in HEADER_TAGS)
    is_given = any(attributes[tag].strip() not in NO_AGENTS for tag in CONTRAST_TAGS)
    return Acquisition(
        file_format="DICOM",
        patient=pseudonym("patient", patient_id),
        site=pseudonym("site", institution.upper()),
        scanner=model if model.upper().startswith(maker.upper()) else f"{maker} {model}".strip(),
        kernel=attributes["ConvolutionKernel"],
        contrast=GIVEN if is_given else NOT_STATED,
    )
