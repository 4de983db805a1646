"""Patients: distributions of bodies, breath and contrast medium.

Sources of the ranges of `ANY_PATIENTS`:
- Breath: the mean density of lungs at any depth of breath is about -860 to -700 HU, and the rear third of the bases may
  be 200 HU denser than the front third, less so after a deep breath (Robinson and Kreel, Journal of Computer Assisted
  Tomography 1979, in units of 2 HU). Exhaling adds more density behind than in front, and more at the bases
  (Verschakelen et al., AJR 1993; Webb et al., Radiology 1993). At full inspiration, the mean density differs by about
  40 HU between people, and radiologists often take three quarters of a breath for a full one (Vikgren et al., European
  Radiology 2003), so inspiration is rarely complete. Haze behind and crowded vessels belong to a shallow breath;
  their ranges were chosen so that the lungs' quartiles of density, in front and behind, enclose those of real studies.
  One scan in five is expiratory: then lungs without disease look hazy behind, which must not pass for a pneumonia.
  How much of that haze lies in the gutters beside the spine was chosen after a real expiratory scan (LUNG1-003).
- Contrast medium: the aorta gains about 300 HU when it is imaged and about 120 HU in the portal venous phase, the
  spleen about 100 and 75 HU, the liver about 20 and 60 HU (Goshima et al., AJR 2006); how much is a matter of dose and
  body weight, hence the wide ranges (Bae, Radiology 2010). Pulmonary arteries, and the veins by which it
  flows in: chosen for variety.
- Kyphosis grows with age (Fon et al., AJR 1980); its range, and a chest depth of 0.60 to 0.92 of its width from flat to
  barrel chests, were chosen for variety.
- Fat, breasts, arms, muscles: chosen for variety.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrast medium in the blood, HU of each compartment."""

    cava: float
    right: float  # right heart
    pulmonary: float
    left: float  # left heart and aorta
    myocardium: float
    liver: float  # increase in the liver


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population:
    """Distribution of people. The defaults are those of `MOSMED_PATIENTS`.

    Attributes:
      fatness: parameters of a beta distribution from lean to obese.
      inspiration: parameters of a beta distribution from full expiration to full inspiration.
      expiratory: probability of a scan in the lower part of a breath.
      expired_height: mm by which the lungs are lower after full expiration.
      lowest_height: least height of the lungs, mm.
      expired_hu: HU by which the lungs are denser after full expiration.
      densest_lung: greatest density of the parenchyma, HU.
      expired_gradient: HU by which the difference between front and back of the lungs grows by full expiration.
      depth_share: range of the chest's depth as a share of its width.
      deepest: greatest half-depth of the chest, mm.
      kyphosis: greatest displacement of the apices by kyphosis, mm.
      is_varied: whether arms, haze, contrast medium and the shape of the body vary.
      arms_down: probability of arms beside the body.
      obese: probability of more subcutaneous fat than `fatness` gives.
      contrast: probability of each phase of contrast medium: "none", "venous", "aorta", "pulmonary".
    """

    fatness: tuple[float, float] = (1.5, 2.2)
    inspiration: tuple[float, float] = (3.0, 1.6)
    expiratory: float = 0.0
    expired_height: float = 45
    lowest_height: float = 170
    expired_hu: float = 85
    densest_lung: float = -755
    expired_gradient: float = 60
    depth_share: tuple[float, float] = (0.62, 0.77)
    deepest: float = 116
    kyphosis: float = 22
    is_varied: bool = False
    arms_down: float = 0.0
    obese: float = 0.0
    contrast: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 1.0})


MOSMED_PATIENTS = Population()
ANY_PATIENTS = Population(
    fatness=(1.3, 1.8),
    inspiration=(2.4, 1.0),
    expiratory=0.2,
    expired_height=62,
    lowest_height=150,
    expired_hu=165,
    densest_lung=-650,
    expired_gradient=400,
    depth_share=(0.60, 0.92),
    deepest=138,
    kyphosis=42,
    is_varied=True,
    arms_down=0.2,
    obese=0.25,
    contrast={"none": 0.45, "venous": 0.3, "aorta": 0.12, "pulmonary": 0.13},
)


def sample_contrast(phases: dict[str, float], rng: np.random.Generator) -> Contrast | None:
    """Draw the phase of contrast medium and the density of each compartment; None without contrast medium."""
    phase = rng.choice(list(phases), p=list(phases.values()))
    if phase == "none":
        return None
    if phase == "venous":
        blood = rng.uniform(95, 190)
        cava, right, pulmonary, left = blood * rng.uniform(0.9, 1.1, 4)
    elif phase == "aorta":
        left, right, pulmonary = rng.uniform(200, 400), rng.uniform(80, 260), rng.uniform(120, 300)
        cava = rng.uniform(100, 600)
    else:
        pulmonary, left = rng.uniform(200, 450), rng.uniform(80, 320)
        right, cava = pulmonary * rng.uniform(0.9, 1.1), rng.uniform(200, 900)
    liver = rng.uniform(25, 65) if phase == "venous" else rng.uniform(0, 25)
    return Contrast(*map(float, (cava, right, pulmonary, left, rng.uniform(65, 125), liver)))
