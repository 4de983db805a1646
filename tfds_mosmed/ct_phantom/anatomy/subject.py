"""Subject: the parameters in which one body differs from another.

The frame is the patient's, in millimetres: x from the right to the left, y from front to back with 0 at the middle
of the rib cage, z from feet to head with 0 at the deepest costophrenic recess and `lung_height` at the apex.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Subject:
    """Parameters of one person in one breath-hold: sizes in mm, densities in HU."""

    female: bool
    lung_height: float
    half_width: float  # of the rib cage, inside
    half_depth: float
    squareness: float  # exponent of the superellipse of the rib cage
    barycentre: float  # how far behind the middle the cage is widest, as a share of its depth
    gutter: float  # how far the spine dents the back of the rib cage, as a share of its depth
    muscle: float  # scale of muscle thickness
    fat: float  # subcutaneous, at the flank
    visceral_fat: float  # 0 lean .. 1 obese
    breast: float
    armpit: float  # half-width of the fat in it
    carina_z: float
    dome_right: float  # height of the diaphragm's domes
    dome_left: float
    dome_power: float
    heart_scale: float
    heart_shift: float
    aorta_scale: float
    kyphosis: float
    tilt: float  # lateral shift of the body per mm of height
    lean: float  # shift to one side of the rib cage, mm per mm of depth
    parenchyma_hu: float
    dependent_hu: float  # increase from the front to the back of the lungs
    mottle_hu: float  # standard deviation of regional density
    fine_hu: float  # contrast of vessels too small to be drawn
    fissure_hu: float  # contrast of the fissures
    vessel_scale: float
    num_vessels: int
    rib_phase: float
    rib_pitch: float
    rib_drop: float
    disc_phase: float
    bone_hu: float
    blood_hu: float
    muscle_hu: float
    fat_hu: float
    liver_hu: float


def sample_subject(rng: np.random.Generator) -> Subject:
    """Draw a person. The distribution does not depend on the category."""
    female = bool(rng.random() < 0.5)
    fatness = rng.beta(1.5, 2.2)
    inspiration = rng.beta(3.0, 1.6)  # 1: full breath, 0: expiratory scan
    size = rng.normal(0.0, 1.0)
    height = (247 if female else 272) + 13 * size - 45 * (1 - inspiration) + rng.normal(0, 9)
    height = float(np.clip(height, 170, 325))
    dome = 0.30 + 0.20 * (1 - inspiration) + 0.05 * fatness + rng.normal(0, 0.025)
    half_width = (126 if female else 141) + 6 * size + rng.normal(0, 5) + 6 * fatness
    parenchyma = -888 + 85 * (1 - inspiration) ** 1.2 + rng.normal(0, 20)
    return Subject(
        female=female,
        lung_height=height,
        half_width=float(np.clip(half_width, 106, 170)),
        half_depth=float(np.clip(half_width * rng.uniform(0.62, 0.77), 68, 116)),
        squareness=rng.uniform(1.95, 2.3),
        barycentre=rng.uniform(0.05, 0.25),
        gutter=rng.uniform(0.32, 0.48),
        muscle=(0.75 if female else 1.0) * rng.uniform(0.75, 1.2),
        fat=4 + 44 * fatness * rng.uniform(0.7, 1.1) * (1.15 if female else 0.9),
        visceral_fat=float(np.clip(fatness * rng.uniform(0.7, 1.3), 0, 1)),
        armpit=rng.uniform(8, 20),
        breast=rng.uniform(12, 50) * (0.5 + fatness) if female else rng.uniform(0, 6),
        carina_z=height * rng.uniform(0.63, 0.70),
        dome_right=height * dome,
        dome_left=height * dome - rng.uniform(-2, 18),
        dome_power=rng.uniform(2.0, 3.2),
        heart_scale=rng.uniform(0.82, 1.1) * half_width / 138,
        heart_shift=rng.uniform(14, 34),
        aorta_scale=rng.uniform(0.85, 1.25),
        kyphosis=rng.uniform(0, 22),
        tilt=rng.normal(0, 0.025),
        lean=rng.normal(0, 0.03),
        parenchyma_hu=float(np.clip(parenchyma, -930, -755)),
        dependent_hu=rng.uniform(5, 65) + 60 * (1 - inspiration),
        mottle_hu=rng.uniform(3, 15),
        fine_hu=rng.uniform(12, 42),
        fissure_hu=rng.uniform(0, 130),
        vessel_scale=rng.uniform(0.88, 1.2),
        num_vessels=int(rng.integers(2800, 5000)),
        rib_phase=rng.uniform(0, 1),
        rib_pitch=rng.uniform(22, 29) * height / 250,
        rib_drop=rng.uniform(85, 130),
        disc_phase=rng.uniform(0, 1),
        bone_hu=rng.uniform(120, 300),
        blood_hu=rng.uniform(32, 50),
        muscle_hu=rng.uniform(42, 62),
        fat_hu=rng.uniform(-115, -95),
        liver_hu=rng.uniform(35, 68),
    )
