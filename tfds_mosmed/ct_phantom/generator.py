"""Generator of synthetic chest CT: a random anatomy with COVID-like lesions of known extent.

phantom = make_phantom(seed=7, category="CT-2")
write_study(phantom, "study_0007.nii.gz", "study_0007_mask.nii.gz")
"""

import dataclasses
import os
from pathlib import Path

import deflate
import nibabel as nib
import numpy as np
import scipy.ndimage

from tfds_mosmed.ct_phantom.acquisition import Acquisition, sample_acquisition
from tfds_mosmed.ct_phantom.anatomy.body import build_chest_wall
from tfds_mosmed.ct_phantom.anatomy.organs import build_organs
from tfds_mosmed.ct_phantom.anatomy.subject import Subject, sample_subject
from tfds_mosmed.ct_phantom.anatomy.trees import build_trees, without
from tfds_mosmed.ct_phantom.disease.cases import CLASSES, NEGATIVES, changed_subject, draw_case, sample_case
from tfds_mosmed.ct_phantom.disease.lesions import covid_lesions
from tfds_mosmed.ct_phantom.disease.mimics import draw_findings, sample_findings
from tfds_mosmed.ct_phantom.disease.site import Site
from tfds_mosmed.ct_phantom.hospital import HOSPITALS, Hospital
from tfds_mosmed.ct_phantom.render import render
from tfds_mosmed.ct_phantom.scene import Scene

MOSMED = HOSPITALS["mosmed"]
CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
MOSMED_COUNTS = {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
BALANCED_SHARES = {"CT-0": 0.5, "CT-1": 0.2, "CT-2": 0.125, "CT-3": 0.1, "CT-4": 0.075}


@dataclasses.dataclass(frozen=True)
class Phantom:
    """Synthetic study.

    Attributes:
      hu: int16 (slice, row, column), feet to head, front to back, patient's right to left.
      lesion_mask: bool like `hu`; True where a COVID-like lesion takes at least half of a lung voxel.
      lung_mask: bool like `hu`; the lungs with their diseased parts, without fluid around them.
      finding: uint8 like `hu`; i + 1 where `findings[i]` is, 0 elsewhere; the last of those that overlap. "motion" has
        no place, and neither have the findings of MosMedData's hospital.
      spacing_mm: (slice, row, column).
      category: "CT-0" .. "CT-4".
      findings: names of the lesions and other findings that were drawn.
    """

    hu: np.ndarray
    lesion_mask: np.ndarray
    lung_mask: np.ndarray
    finding: np.ndarray
    spacing_mm: tuple[float, float, float]
    category: str
    findings: tuple[str, ...]

    def lesion_diameters(self) -> list[float]:
        """Return the diameters of spheres of the volumes of the COVID-like lesions, mm, the largest first.

        Lesions are the parts of the mask that do not touch each other, at every second pixel in each direction.
        """
        every = 2 if self.lesion_mask[:, ::2, ::2].any() else 1
        mask = self.lesion_mask[:, ::every, ::every]
        if not mask.any():
            return []
        box = scipy.ndimage.find_objects(mask.astype(np.uint8))[0]
        labels = np.empty(mask[box].shape, np.int32)
        scipy.ndimage.label(mask[box], output=labels)
        volumes = np.bincount(labels.ravel())[1:] * np.prod(self.spacing_mm) * every**2
        return [round(float(d), 1) for d in np.sort(np.cbrt(6 / np.pi * volumes))[::-1]]


def make_phantom(
    seed: int, category: str, matrix: int = 512, hospital: Hospital = MOSMED, kind: str | None = None
) -> Phantom:
    """Generate a study; a pure function of its arguments.

    Args:
      seed: any non-negative integer; another seed gives another person in another scan.
      category: "CT-0" (no lesion) to "CT-4" (more than 75 % of the lungs).
      matrix: rows and columns of a slice; the field of view stays the same.
      hospital: its scanners and patients. That of MosMedData has findings of its own, see `disease.mimics`.
      kind: one of `disease.cases.CLASSES`; None for "covid", or for any other where the category is "CT-0".

    Raises:
      ValueError: if the category or kind is unknown, they do not fit, or the matrix is under 64; or if a negative
        kind of MosMedData's hospital is asked for.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category={category!r} must be one of {', '.join(CATEGORIES)}.")
    if matrix < 64:
        raise ValueError(f"matrix={matrix} must be at least 64.")
    if hospital is MOSMED and kind not in (None, "covid"):
        raise ValueError(f"kind={kind!r}: MosMedData's hospital has no classes of negative studies.")
    kind = kind or _kind_for(seed, category)
    if (kind == "covid") != (category != "CT-0"):
        raise ValueError(f"kind={kind!r} does not fit category={category!r}: COVID-19 is CT-1 or more.")
    rng, subject, scan = draw_person(seed, category, matrix, hospital)
    draw = _draw_mosmed if hospital is MOSMED else _draw_case
    scene = draw(category, kind, subject, scan, hospital, rng)
    image = render(scene, rng)
    spacing = (scan.gap, scan.pixel, scan.pixel)
    return Phantom(image.hu, image.lesion_mask, image.lung_mask, image.finding, spacing, category, scene.findings)


def _kind_for(seed: int, category: str) -> str:
    if category != "CT-0":
        return "covid"
    rng = np.random.Generator(np.random.PCG64([seed, len(CATEGORIES)]))
    return str(rng.choice(list(NEGATIVES), p=list(NEGATIVES.values())))


def _draw_mosmed(category: str, kind: str, subject: Subject, scan: Acquisition, hospital: Hospital, rng) -> Scene:
    wall = build_chest_wall(subject, scan)
    organs = build_organs(subject, scan, wall, rng)
    trees = build_trees(subject, scan, organs, rng)
    findings = sample_findings(category != "CT-0", rng)
    place = Site(organs.lungs, wall, subject, scan, rng, smooth=False)
    opacities = draw_findings(findings, place)
    if category != "CT-0":
        lesions, names = covid_lesions(category, place)
        opacities = lesions + opacities
        findings += names
    return Scene(subject, scan, wall, organs, trees, opacities, "motion" in findings, findings=tuple(findings))


def _draw_case(category: str, kind: str, subject: Subject, scan: Acquisition, hospital: Hospital, rng) -> Scene:
    findings = sample_case(kind, rng)
    subject = changed_subject(subject, findings, rng)
    wall = build_chest_wall(subject, scan)
    organs = build_organs(subject, scan, wall, rng)
    drawn = draw_case(category, findings, wall, organs, subject, scan, rng)
    trees = build_trees(subject, scan, organs, rng, drawn.bronchi)
    for opacity in drawn.opacities:
        if opacity.fills:
            trees.blood = without(trees.blood, opacity.distance, scan)
    return Scene(
        subject, scan, wall, organs, trees, drawn.opacities, "motion" in findings, drawn.foci, drawn.bronchi,
        drawn.nodes, drawn.findings, hospital.scanner,
    )  # fmt: skip


def draw_person(
    seed: int, category: str, matrix: int, hospital: Hospital = MOSMED
) -> tuple[np.random.Generator, Subject, Acquisition]:
    """Draw a person and a scan. The category enters only as a part of the seed.

    Returns:
      The generator of random numbers for everything else, the person, the scan.
    """
    words = [seed, CATEGORIES.index(category)] + [hospital.number] * (hospital is not MOSMED)
    rng = np.random.Generator(np.random.PCG64(words))
    subject = sample_subject(rng, hospital.patients)
    return rng, subject, sample_acquisition(rng, subject, matrix, hospital.scanner)


def write_study(phantom: Phantom, volume_path: str | os.PathLike, mask_path: str | os.PathLike | None = None) -> None:
    """Write a phantom in the format of MosMedData's studies: NIfTI, axis codes LAS, int16 HU; the mask as uint8.

    Args:
      phantom: the study.
      volume_path: file for the volume; ends in .nii.gz or .nii.
      mask_path: file for the lesion mask in the same space, or None to write no mask.
    """
    depth, row, column = phantom.spacing_mm
    affine = np.diag([-column, row, depth, 1.0])
    rows, columns = phantom.hu.shape[1:]
    affine[:3, 3] = (column * (columns - 1) / 2, -row * (rows - 1) / 2, 0.0)
    _write(phantom.hu, affine, volume_path)
    if mask_path is not None:
        _write(phantom.lesion_mask.astype(np.uint8), affine, mask_path)


def _write(volume: np.ndarray, affine: np.ndarray, path: str | os.PathLike) -> None:
    # (slice, row from the front, column from the right) -> (x to the left, y to the front, z to the head)
    image = nib.Nifti1Image(volume[:, ::-1, :].transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    Path(path).write_bytes(deflate.gzip_compress(content, 1) if str(path).endswith(".gz") else content)


def categories_for(num_studies: int, shares: str, seed: int) -> list[str]:
    """Return the categories of a data set's studies, in a shuffled order.

    Args:
      num_studies: number of studies. With five or more, every category is present.
      shares: "mosmed" (254 : 684 : 125 : 45 : 2, as in MosMedData) or "balanced" (half CT-0, the rest spread over
        CT-1 .. CT-4).
      seed: seed of the order.

    Raises:
      ValueError: if the shares are unknown.
    """
    weights = {"mosmed": MOSMED_COUNTS, "balanced": BALANCED_SHARES}.get(shares)
    if weights is None:
        raise ValueError(f"shares={shares!r} must be 'mosmed' or 'balanced'.")
    exact = np.array([weights[c] for c in CATEGORIES], float)
    exact *= num_studies / exact.sum()
    count = np.floor(exact).astype(int)
    if num_studies >= len(CATEGORIES):
        count = np.maximum(count, 1)
    while count.sum() < num_studies:  # largest remainders first
        count[np.argmax(exact - count)] += 1
    while count.sum() > num_studies:
        count[np.argmax(np.where(count > 1, count - exact, -np.inf))] -= 1
    ordered = np.repeat(CATEGORIES, count)
    return [str(c) for c in np.random.Generator(np.random.PCG64(seed)).permutation(ordered)]


def classes_for(num_studies: int, seed: int) -> list[tuple[str, str]]:
    """Return class and grade of a data set's studies, in a shuffled order.

    The classes are of equal size. COVID-19 has the grades of `BALANCED_SHARES`.

    Args:
      num_studies: number of studies.
      seed: seed of the order.

    Returns:
      For each study one of `disease.cases.CLASSES`, and "CT-0" .. "CT-4".
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    kinds = [CLASSES[i] for i in rng.permutation(np.arange(num_studies) % len(CLASSES))]
    grades = list(BALANCED_SHARES)[1:]
    weights = np.array([BALANCED_SHARES[g] for g in grades])
    drawn = rng.choice(grades, num_studies, p=weights / weights.sum())
    return [(kind, str(grade) if kind == "covid" else "CT-0") for kind, grade in zip(kinds, drawn, strict=True)]
