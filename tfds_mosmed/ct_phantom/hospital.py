"""Hospitals: who is scanned there, and by which scanners."""

import dataclasses

from tfds_mosmed.ct_phantom.anatomy.population import ANY_PATIENTS, MOSMED_PATIENTS, Population
from tfds_mosmed.ct_phantom.scanner import EXTERNAL, MANY, MOSMED, Scanner


@dataclasses.dataclass(frozen=True)
class Hospital:
    """Distribution of scans and patients.

    Attributes:
      scanner: its scanners and protocols.
      patients: its patients.
      number: part of the seed of everything that is drawn there, so that no two hospitals share a person.
    """

    scanner: Scanner
    patients: Population
    number: int


HOSPITALS = {
    "mosmed": Hospital(MOSMED, MOSMED_PATIENTS, 0),
    # Any scanner and patient: networks that are trained on it are to know every real scan.
    "any": Hospital(MANY, ANY_PATIENTS, 1),
    # One hospital with protocols of its own, for external tests: older patients, more of them in bed and with contrast
    # medium, thin slices, sharp kernels, low dose.
    "external": Hospital(
        EXTERNAL,
        dataclasses.replace(
            ANY_PATIENTS,
            fatness=(1.8, 1.6),
            inspiration=(1.3, 1.3),
            kyphosis=55,
            arms_down=0.4,
            contrast={"none": 0.25, "venous": 0.55, "aorta": 0.1, "pulmonary": 0.1},
        ),
        2,
    ),
}
