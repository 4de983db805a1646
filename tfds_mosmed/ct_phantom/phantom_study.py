"""Study of a phantom: generated, written as NIfTI, and read back like real data."""

import dataclasses
import tempfile
from pathlib import Path

from tfds_mosmed.building.study import LoadedStudy, SourceFile
from tfds_mosmed.ct_phantom import generator
from tfds_mosmed.scans.read import read_mask, read_scan


@dataclasses.dataclass(frozen=True)
class PhantomStudy:
    """Phantom that is generated when it is read.

    Attributes:
      study_id: its id in the records.
      category: "CT-0" … "CT-4".
      seed: seed of the phantom.
      matrix: rows and columns of its slices.
    """

    study_id: str
    category: str
    seed: int
    matrix: int

    def load(self) -> LoadedStudy:
        """Generate the phantom, write it to files and read these."""
        phantom = generator.make_phantom(self.seed, self.category, self.matrix)
        with tempfile.TemporaryDirectory(prefix="phantom-") as folder:
            volume, mask = Path(folder, "study.nii.gz"), Path(folder, "mask.nii.gz")
            generator.write_study(phantom, volume, mask)
            scan = read_scan(volume)
            lesion_mask = read_mask(mask, scan)
        return LoadedStudy(scan, lesion_mask, ())

    def files(self) -> list[tuple[str, SourceFile]]:
        """Return none: a phantom is generated."""
        return []
