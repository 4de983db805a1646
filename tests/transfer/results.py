"""Results of the transfer benchmark, as result.json holds them. Intervals are of 95 %."""

import dataclasses

from covidscan.metrics.detectability import Detection
from covidscan.metrics.results import Difference, Metric


@dataclasses.dataclass(frozen=True)
class Band:
    """Positive studies whose largest lesion has a diameter in a band, against all negative ones.

    Attributes:
      name: of the band, in mm.
      num_positive: positive studies in it.
      auroc: of these and all negative studies.
    """

    name: str
    num_positive: int
    auroc: Metric


@dataclasses.dataclass(frozen=True)
class HardPhantoms:
    """Performance on the hard phantoms.

    Attributes:
      num_positive: positive studies.
      num_negative: negative ones.
      num_diseased: negative ones with another disease.
      auroc: of all.
      bands: by the diameter of the largest lesion.
      threshold: with a specificity of 95 % on the negative studies with another disease; None without any.
      sensitivity: of all positive studies, at this threshold.
    """

    num_positive: int
    num_negative: int
    num_diseased: int
    auroc: Metric
    bands: list[Band]
    threshold: float | None
    sensitivity: Metric


@dataclasses.dataclass(frozen=True)
class Hospital:
    """Performance on the second hospital."""

    num_positive: int
    num_negative: int
    auroc: Metric


@dataclasses.dataclass(frozen=True)
class RealStudy:
    """A real study.

    Attributes:
      name: CLASS/FILE.
      kind: its class, the name of its folder.
      probability: of COVID-19; None if the study was refused.
      error: why it was refused.
    """

    name: str
    kind: str
    probability: float | None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class RealStudies:
    """Performance on real studies.

    Attributes:
      studies: with their probabilities.
      ranks: of the COVID-19 studies among all by falling probability, from 1; ties have the last rank.
      auroc: of COVID-19 against the rest.
    """

    studies: list[RealStudy]
    ranks: list[int]
    auroc: Metric


@dataclasses.dataclass(frozen=True)
class Insertions:
    """Sensitivity to lesions inserted into real studies without COVID-19, at `HardPhantoms.threshold`.

    Attributes:
      num_scans: scans that lesions were inserted into.
      num_positive: of these, those that are positive without a lesion, in which nothing can be detected.
      refused: the others, (scan, reason).
      detections: of each lesion.
    """

    num_scans: int
    num_positive: int
    refused: list[tuple[str, str]]
    detections: list[Detection]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """AUROC on the hard phantoms, less that of another recipe on the same studies.

    Attributes:
      other: the other recipe.
      num_studies: studies that both recipes predicted.
      auroc: the difference.
    """

    other: str
    num_studies: int
    auroc: Difference


@dataclasses.dataclass(frozen=True)
class Training:
    """Training of a network.

    Attributes:
      flags: of the recipe.
      date: of its end, ISO 8601.
      machine: the processor and the number of cores.
    """

    flags: list[str]
    date: str
    machine: str


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """Everything that was measured of one network.

    Attributes:
      recipe: its name.
      seed: of the training.
      training: how it was trained.
      dataset: the phantoms that it was trained on.
      num_train: number of training studies.
      fingerprints: data set -> fingerprint of its records.
      versions: package -> version, in the training.
      minutes: duration of the training steps, without validations.
      hard: performance on the hard phantoms.
      hospital: on the second hospital.
      real: on real studies; None without any.
      insertions: on lesions inserted into those without COVID-19; None without any, or without a threshold.
      comparison: with another recipe; None if none was named.
    """

    recipe: str
    seed: int
    training: Training
    dataset: str
    num_train: int
    fingerprints: dict[str, str]
    versions: dict[str, str]
    minutes: float
    hard: HardPhantoms
    hospital: Hospital
    real: RealStudies | None
    insertions: Insertions | None
    comparison: Comparison | None
