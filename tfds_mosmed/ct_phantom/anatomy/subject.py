"""Subject: the parameters in which one body differs from another.

The frame is the patient's, in millimetres: x from the right to the left, y from front to back with 0 at the middle
of the rib cage, z from feet to head with 0 at the deepest costophrenic recess and `lung_height` at the apex.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.anatomy.population import MOSMED_PATIENTS, Contrast, Population, sample_contrast
from tfds_mosmed.ct_phantom.anatomy.vessels import STEM_GROWTH, STEM_MM

EXPIRATORY = 0.4  # greatest share of a full breath in an expiratory scan


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
    spleen_hu: float = 48.0
    kidney_hu: float = 33.0
    arms_down: bool = False
    arm: float = 42.0  # radius of an upper arm
    haze_hu: float = 0.0  # increase of density at the dependent surface of the lungs, by gravity and shallow breath
    haze_mm: float = 30.0  # depth at which it has fallen to a third
    haze_by_height: float = 0.0  # share of the haze that lies by its height and not by its distance from the surface
    crescent_hu: float = 0.0  # further increase of density at the lowest places
    crescent_mm: float = 10.0  # height above them at which it has fallen to a third
    crowding: float = 0.0  # concentration of the vessels in the dependent parts of the lungs
    stem_growth: float = STEM_GROWTH  # of the vessels at the hilum, see `vessels`
    stem_mm: float = STEM_MM
    septa: float = 0.0  # share of fat in the planes between the muscles' layers
    skin_power: float = 2.25  # exponent of the superellipse of the skin
    layered: bool = False  # whether the chest wall is that of `torso`, or an ellipse
    bulge: float = 0.2  # of the lungs beside the spine, as a share of the rib cage's depth
    spine_mm: float = 0.0  # by which the spine lies further back than `body.SPINE` has it
    sides: float = 0.0  # by which the right half of the chest is wider than the left one, as a share
    heart_front: float = 0.28  # how far the heart lies in front of the middle, as a share of the chest's half-depth
    fan: float = 0.0  # how strictly vessels branch sideways, 0 .. 1
    smallest_bronchus: float = 1.9  # radius of the artery beside it, mm
    bronchial_wall: float = 1.0  # scale of its thickness
    contrast: Contrast | None = None  # contrast medium in the blood

    @property
    def vessel_hu(self) -> float:
        """Density of the blood in the lungs' vessels."""
        return self.contrast.pulmonary if self.contrast else self.blood_hu


def sample_subject(rng: np.random.Generator, people: Population = MOSMED_PATIENTS) -> Subject:
    """Draw a person. The distribution does not depend on the category."""
    female = bool(rng.random() < 0.5)
    fatness = rng.beta(*people.fatness)
    inspiration = rng.beta(*people.inspiration)  # 1: full breath, 0: expiratory scan
    if people.expiratory and rng.random() < people.expiratory:
        inspiration *= EXPIRATORY
    size = rng.normal(0.0, 1.0)
    height = (247 if female else 272) + 13 * size - people.expired_height * (1 - inspiration) + rng.normal(0, 9)
    height = float(np.clip(height, people.lowest_height, 325))
    dome = 0.30 + 0.20 * (1 - inspiration) + 0.05 * fatness + rng.normal(0, 0.025)
    half_width = (126 if female else 141) + 6 * size + rng.normal(0, 5) + 6 * fatness
    parenchyma = -888 + people.expired_hu * (1 - inspiration) ** 1.2 + rng.normal(0, 20)
    subject = Subject(
        female=female,
        lung_height=height,
        half_width=float(np.clip(half_width, 106, 170)),
        half_depth=float(np.clip(half_width * rng.uniform(*people.depth_share), 68, people.deepest)),
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
        kyphosis=rng.uniform(0, people.kyphosis),
        tilt=rng.normal(0, 0.025),
        lean=rng.normal(0, 0.03),
        parenchyma_hu=float(np.clip(parenchyma, -930, people.densest_lung)),
        dependent_hu=rng.uniform(5, 65) + people.expired_gradient * (1 - inspiration),
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
    return _varied(subject, people, fatness, inspiration, rng) if people.is_varied else subject


def _varied(s: Subject, people: Population, fatness: float, inspiration: float, rng: np.random.Generator) -> Subject:
    """Return the person with what varies among the patients of many hospitals only."""
    shallow = 1 - inspiration
    contrast = sample_contrast(people.contrast, rng)
    portal = contrast.liver if contrast else 0.0
    return dataclasses.replace(
        s,
        arms_down=bool(rng.random() < people.arms_down),
        arm=float(rng.uniform(34, 44) + 16 * fatness),
        fat=s.fat + (float(rng.exponential(14)) if rng.random() < people.obese else 0.0),
        muscle=float(s.muscle * rng.uniform(0.55, 1.15)),
        septa=float(rng.uniform(0.1, 0.8)),
        layered=True,
        bulge=float(rng.uniform(0.0, 0.1)),
        spine_mm=float(rng.uniform(4, 12)),
        sides=float(rng.normal(0.02, 0.02)),
        heart_front=float(rng.uniform(0.33, 0.46)),
        heart_scale=float(s.heart_scale * rng.uniform(1.02, 1.28)),
        heart_shift=float(rng.uniform(18, 40)),
        fan=float(rng.uniform(0.4, 0.8)),
        smallest_bronchus=float(rng.uniform(2.0, 3.2)),
        bronchial_wall=float(rng.uniform(0.4, 0.9)),
        fine_hu=float(s.fine_hu * rng.uniform(0.0, 0.5)),
        mottle_hu=float(s.mottle_hu * rng.uniform(0.4, 1.0)),
        parenchyma_hu=float(max(s.parenchyma_hu - rng.uniform(0, 20), -930)),
        rib_drop=float(s.rib_drop * rng.uniform(1.3, 1.8)),
        breast=float(s.breast * rng.uniform(0.6, 1.9)),
        dependent_hu=float(rng.uniform(5, 65) + people.expired_gradient * shallow**2),
        haze_hu=float(rng.uniform(0, 45) + 390 * shallow**1.8 * rng.uniform(0.1, 1.0)),
        haze_mm=float(rng.uniform(8, 22) + 90 * shallow * rng.uniform(0, 1)),
        crowding=float(rng.uniform(-0.4, 0.3) + 1.8 * shallow**1.4 * rng.uniform(0.2, 1.0)),
        vessel_scale=float(s.vessel_scale * (1 + 0.2 * shallow * rng.uniform(0, 1)) * rng.uniform(0.85, 1.15)),
        num_vessels=int(rng.integers(3500, 6500)),
        stem_growth=float(rng.uniform(0.5, 0.8)),
        stem_mm=float(rng.uniform(0.8, 1.2)),
        fissure_hu=float(s.fissure_hu * rng.uniform(0, 1.3)),
        contrast=contrast,
        blood_hu=float(contrast.myocardium if contrast else s.blood_hu),
        muscle_hu=float(s.muscle_hu + 0.15 * portal),
        liver_hu=float(s.liver_hu + portal - (rng.uniform(20, 60) if rng.random() < 0.12 else 0.0)),
        spleen_hu=float(48 + (contrast.left * 0.35 if contrast else 0.0)),
        kidney_hu=float(33 + (contrast.left * 0.55 if contrast else 0.0)),
        haze_by_height=float(rng.uniform(0, 1)),
        crescent_hu=float(300 * shallow * rng.uniform(0, 1) * (rng.random() < 0.6)),
        crescent_mm=float(rng.uniform(5, 22)),
    )
