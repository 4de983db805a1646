"""Share of the lungs that is involved: from the lesion map, or from the evidence of a network without one."""

import dataclasses
import json
from typing import NamedTuple

import numpy as np
from etils import epath

from covidscan.explanation import maps
from covidscan.explanation.evidence import SHOWN_FROM
from tfds_mosmed.preprocessing.lung_region import lung_region
from tfds_mosmed.preprocessing.prepare import Prepared
from tfds_mosmed.scans.scan import Scan
from tfds_mosmed.storage import write_whole

LESION_FROM = 0.5  # probability
RIGHT, LEFT = 1, 2  # in the mask of the lungs
LESIONS, EVIDENCE = "lesions", "evidence"
_MEANING = {
    LESIONS: "Probability of lesion, 0 to 1: the mean over the networks, which were trained with lesion masks.",
    EVIDENCE: "Grad-CAM, as a share of its maximum times the strength of the evidence, 0 to 1. The networks were not "
    "trained with lesion masks: it shows where they look, and outlines no lesions.",
}


class Sides(NamedTuple):
    """Measurement of both lungs and of each; None where there is no lung."""

    both: float | None
    right: float | None
    left: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Involvement:
    """Map and lungs of a study on its scan's voxels, and what they measure.

    Attributes:
      kind: "lesions" if the map is of networks that were trained with lesion masks, else "evidence".
      map: float32 (slice, row, column), 0 to 1; 0 outside of the box that the grid covers.
      threshold: from which a voxel of the map counts.
      lungs: uint8 (slice, row, column), 1 in the right lung and 2 in the left, 0 elsewhere, with the lesions in them.
      counted: bool (slice, row, column), where the map counts: in the lungs.
      lung_ml: volume of the lungs.
      counted_ml: volume in which the map counts.
      percent: of the lungs.
    """

    kind: str
    map: np.ndarray
    threshold: float
    lungs: np.ndarray
    counted: np.ndarray
    lung_ml: Sides
    counted_ml: Sides
    percent: Sides

    def to_json(self, name: str, model: str) -> str:
        """Return the measurements as JSON, with the names of the files of `write_involvement`."""
        unit = "involved" if self.kind == LESIONS else "with_evidence"
        values = {
            "model": model,
            "map": {"file": f"{name}_{self.kind}.nii.gz", "kind": self.kind, "meaning": _MEANING[self.kind]},
            "threshold": self.threshold,
            "lungs": {"file": f"{name}_lungs.nii.gz", "values": {str(RIGHT): "right lung", str(LEFT): "left lung"}},
            "lung_ml": _rounded(self.lung_ml, 1),
            f"{self.kind}_ml": _rounded(self.counted_ml, 1),
            f"percent_of_lung_{unit}": _rounded(self.percent, 2),
        }
        return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _rounded(sides: Sides, digits: int) -> dict[str, float | None]:
    return {side: value if value is None else round(value, digits) for side, value in sides._asdict().items()}


def measure_involvement(scan: Scan, prepared: Prepared, grid_map: np.ndarray, kind: str) -> Involvement:
    """Measure how much of the lungs a map marks.

    Consolidated lung looks like muscle and is missing from the segmentation of the lungs. So lesions in the thorax
    count as lung; evidence, which is no outline of anything, counts in the segmented lungs only.

    Args:
      scan: the study.
      prepared: the study on the grid.
      grid_map: (slice, row, column) on the grid, 0 to 1.
      kind: see `Involvement`.
    """
    threshold = LESION_FROM if kind == LESIONS else SHOWN_FROM
    laid = maps.lay_over(scan, prepared, grid_map)
    marked = laid >= threshold
    lungs = np.zeros(scan.hu.shape, np.uint8)
    if region := lung_region(scan.hu, scan.spacing_mm):
        is_lung = region.lungs | (marked & region.thorax) if kind == LESIONS else region.lungs
        columns = np.where(np.arange(scan.hu.shape[2]) + 0.5 < region.middle, RIGHT, LEFT).astype(np.uint8)
        lungs = is_lung * columns
    counted = marked & (lungs > 0)
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    in_lungs = np.bincount(lungs.ravel(), minlength=3)[1:] * voxel_ml
    in_map = np.bincount(lungs[counted], minlength=3)[1:] * voxel_ml
    lung_ml, counted_ml = (_sides(ml, in_lungs) for ml in (in_lungs, in_map))
    percent = Sides(*(
        None if part is None or not whole else 100 * part / whole
        for part, whole in zip(counted_ml, lung_ml, strict=True)
    ))  # fmt: skip
    return Involvement(kind, laid, threshold, lungs, counted, lung_ml, counted_ml, percent)


def _sides(ml: np.ndarray, lung_ml: np.ndarray) -> Sides:
    if not lung_ml.any():
        return Sides(None, None, None)
    right, left = (float(own) if lung else None for own, lung in zip(ml, lung_ml, strict=True))
    return Sides(float(ml.sum()), right, left)


def write_involvement(folder: epath.PathLike, name: str, scan: Scan, found: Involvement, model: str) -> list[str]:
    """Write the map, the lungs and the measurements of a study.

    Args:
      folder: an existing folder.
      name: prefix of the files' names.
      scan: the study.
      found: its involvement.
      model: that predicted, see `covidscan.prediction.prediction.Prediction.model`.

    Returns:
      Names of the files: NAME_lesions.nii.gz or NAME_evidence.nii.gz, the map; NAME_lungs.nii.gz, 1 in the right lung
      and 2 in the left; NAME_lungs.json. Images have the shape and affine of the study's own file.

    Raises:
      OSError: a file cannot be written.
    """
    files = {
        f"{name}_{found.kind}.nii.gz": maps.map_to_nifti(scan, found.map),
        f"{name}_lungs.nii.gz": maps.to_nifti(*scan.to_source_axes(found.lungs)),
        f"{name}_lungs.json": found.to_json(name, model).encode(),
    }
    for file, content in files.items():
        write_whole(epath.Path(folder) / file, content)
    return list(files)
