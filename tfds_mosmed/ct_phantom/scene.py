"""Scene: everything that the slices of a study are drawn from."""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.organs import Organs
from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.anatomy.trees import Trees, WideBronchi
from tfds_mosmed.ct_phantom.disease.opacities import Focus, Opacity
from tfds_mosmed.ct_phantom.scanner import MOSMED, Scanner


@dataclasses.dataclass
class Scene:
    """Everything that a study is drawn from."""

    subject: Subject
    scan: Acquisition
    wall: ChestWall
    organs: Organs
    trees: Trees
    opacities: list[Opacity]
    motion: bool
    foci: list[Focus] = dataclasses.field(default_factory=list)
    bronchi: list[WideBronchi] = dataclasses.field(default_factory=list)
    nodes: np.ndarray | None = None
    findings: tuple[str, ...] = ()
    scanner: Scanner = MOSMED

    def number(self, finding: str) -> int:
        """Return the number of a finding in the map of findings, from 1; 0 without a name."""
        return self.findings.index(finding) + 1 if finding else 0


@dataclasses.dataclass
class Image:
    """Drawn plane, (row, column): HU float32; the masks of lesions and lungs, bool; findings by number, uint8."""

    hu: np.ndarray
    lesion_mask: np.ndarray
    lung_mask: np.ndarray
    finding: np.ndarray
