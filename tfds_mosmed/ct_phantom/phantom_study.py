"""Study of a phantom: generated, written as NIfTI, and read back like real data."""

import dataclasses
import tempfile
from pathlib import Path

from tfds_mosmed.building.study import LoadedStudy, SourceFile
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.ct_phantom.hospital import HOSPITALS
from tfds_mosmed.scans.read import read_mask, read_scan


@dataclasses.dataclass(frozen=True)
class PhantomStudy:
    """Phantom that is generated when it is read.

    Attributes:
      study_id: its id in the records.
      category: its class in the records: "CT-0" … "CT-4", or one of `disease.cases.CLASSES`.
      seed: seed of the phantom.
      matrix: rows and columns of its slices.
      hospital: name of the hospital in `hospital.HOSPITALS`.
      grade: "CT-0" … "CT-4" where the category is another; "" otherwise.
      has_mask: whether its lesion mask is known.
    """

    study_id: str
    category: str
    seed: int
    matrix: int
    hospital: str = "mosmed"
    grade: str = ""
    has_mask: bool = True

    def load(self) -> LoadedStudy:
        """Generate the phantom, write it to files and read these."""
        kind = self.category if self.grade else None
        hospital = HOSPITALS[self.hospital]
        phantom = generator.make_phantom(self.seed, self.grade or self.category, self.matrix, hospital, kind)
        with tempfile.TemporaryDirectory(prefix="phantom-") as folder:
            volume, mask = Path(folder, "study.nii"), Path(folder, "mask.nii")
            generator.write_study(phantom, volume, mask)
            scan = read_scan(volume)
            lesion_mask = read_mask(mask, scan) if self.has_mask else None
        details = {}
        if self.hospital != "mosmed":
            details = {"findings": list(phantom.findings), "lesion_diameters_mm": phantom.lesion_diameters()}
        return LoadedStudy(scan, lesion_mask, (), details)

    def files(self) -> list[tuple[str, SourceFile]]:
        """Return none: a phantom is generated."""
        return []
