"""Cases: which findings the studies of a class have, and all that is drawn for them.

The classes are those that a triage of COVID-19 has to tell apart: COVID-19, other pneumonias, other diseases of the
chest, and normal lungs. Within a class, the frequencies are chosen for variety, not after any population.
"""

import dataclasses

import numpy as np

from tfds_mosmed.ct_phantom.acquisition import Acquisition
from tfds_mosmed.ct_phantom.anatomy.body import ChestWall
from tfds_mosmed.ct_phantom.anatomy.organs import Organs
from tfds_mosmed.ct_phantom.anatomy.subject import Subject
from tfds_mosmed.ct_phantom.anatomy.trees import WideBronchi
from tfds_mosmed.ct_phantom.disease import chronic, infections, mimics, tumours
from tfds_mosmed.ct_phantom.disease.covid import covid
from tfds_mosmed.ct_phantom.disease.opacities import DENSER_HU, Focus, Opacity
from tfds_mosmed.ct_phantom.disease.site import Site

HARMLESS = {
    "dependent_atelectasis": 0.2, "band": 0.1, "apical_scar": 0.1, "nodules": 0.12, "mosaic": 0.06, "motion": 0.12
}  # fmt: skip
DISEASES = {
    "primary_tumour": 0.16, "metastases": 0.09, "post_obstructive": 0.09, "lymph_nodes": 0.12, "emphysema": 0.2,
    "bullae": 0.06, "fibrosis": 0.12, "heart_failure": 0.12, "effusion": 0.1, "bronchiectasis": 0.1,
    "pneumothorax": 0.05, "surgery": 0.08,
}  # fmt: skip
PNEUMONIAS = {"lobar_pneumonia": 0.27, "bronchopneumonia": 0.33, "aspiration": 0.18, "tree_in_bud": 0.22}
ACCOMPANIED = {"bronchiectasis": 0.3, "effusion": 0.25, "lymph_nodes": 0.12, "emphysema": 0.12}
# Other diseases of patients with COVID-19, as a share of their frequency among the other diseases.
COINCIDENT = 0.35
MOTTLE_HU = (0.0, 80.0)  # of ground glass of any disease; chosen for variety
SOLID_MOTTLE_HU = (0.0, 40.0)  # likewise of lung without air
SOLID_HU = -300.0  # ground glass is less dense
MAKERS = {
    maker.__name__: maker
    for maker in (
        mimics.dependent_atelectasis, mimics.emphysema, mimics.bullae, tumours.nodules, mimics.apical_scar, mimics.band,
        mimics.mosaic, tumours.primary_tumour, tumours.metastases, tumours.post_obstructive, infections.lobar_pneumonia,
        infections.bronchopneumonia, infections.tree_in_bud, infections.aspiration, chronic.fibrosis, chronic.effusion,
        chronic.heart_failure, chronic.pneumothorax, chronic.surgery,
    )
}  # fmt: skip
CLASSES = ("covid", "normal", "other", "other_pneumonia")
NEGATIVES = {"normal": 0.4, "other": 0.4, "other_pneumonia": 0.2}  # of the studies without COVID-19


@dataclasses.dataclass
class Drawn:
    """Parts that the findings of a study consist of.

    Attributes:
      findings: their names.
      opacities: regions of changed lung.
      foci: small or round ones.
      bronchi: widened airways.
      nodes: signed distance to enlarged lymph nodes, or None.
    """

    findings: tuple[str, ...]
    opacities: list[Opacity]
    foci: list[Focus]
    bronchi: list[WideBronchi]
    nodes: np.ndarray | None


def sample_case(kind: str, rng: np.random.Generator) -> list[str]:
    """Draw the findings of a study of one of the `CLASSES`, apart from COVID-19 itself."""
    if kind not in CLASSES:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(CLASSES)}.")
    names = [name for name, chance in HARMLESS.items() if rng.random() < chance]
    if kind == "covid":
        names += [name for name, chance in DISEASES.items() if rng.random() < COINCIDENT * chance]
    elif kind == "other_pneumonia":
        names.append(str(rng.choice(list(PNEUMONIAS), p=list(PNEUMONIAS.values()))))
        names += [name for name, chance in ACCOMPANIED.items() if rng.random() < chance]
    elif kind == "other":
        share = np.array(list(DISEASES.values()))
        count = rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15])
        names += [str(name) for name in rng.choice(list(DISEASES), count, replace=False, p=share / share.sum())]
    return names


def changed_subject(s: Subject, findings: list[str], rng: np.random.Generator) -> Subject:
    """Return the person as the findings change the shape of heart and lungs."""
    if "heart_failure" in findings:
        s = dataclasses.replace(
            s, heart_scale=s.heart_scale * rng.uniform(1.1, 1.35), vessel_scale=s.vessel_scale * rng.uniform(1.05, 1.3)
        )
    if "emphysema" in findings:
        s = dataclasses.replace(s, parenchyma_hu=max(s.parenchyma_hu - rng.uniform(0, 40), -950))
    if "fibrosis" in findings or "surgery" in findings:
        raised = rng.uniform(0, 30) * np.array([rng.random() < 0.6, rng.random() < 0.6])
        s = dataclasses.replace(s, dome_right=s.dome_right + raised[0], dome_left=s.dome_left + raised[1])
    return s


def draw_case(
    category: str,
    findings: list[str],
    wall: ChestWall,
    organs: Organs,
    subject: Subject,
    scan: Acquisition,
    rng: np.random.Generator,
) -> Drawn:
    """Draw all findings of a study, COVID-19 last; enlarged nodes change the organs, in place.

    Args:
      category: "CT-0" without COVID-19, or "CT-1" .. "CT-4" with it.
      findings: names of the other findings, from `sample_case`.
      wall: chest wall.
      organs: organs.
      subject: the person.
      scan: the scan.
      rng: source of all random choices.
    """
    place = Site(organs.lungs, wall, subject, scan, rng)
    nodes = tumours.add_lymph_nodes(organs, place) if "lymph_nodes" in findings else None
    place.lungs = organs.lungs
    parts: list[Opacity | Focus] = []
    for name in findings:
        if name in MAKERS:
            parts += [_on_lung(dataclasses.replace(part, name=name), subject) for part in MAKERS[name](place)]
    bronchi = _bronchi(findings, place)
    names = list(findings)
    if category != "CT-0":
        aerated = place.lungs
        for part in parts:
            if isinstance(part, Opacity) and part.fills:
                aerated = np.maximum(aerated, -part.distance)
        place.lungs = aerated
        lesions, patterns = covid(category, place)
        parts, names = parts + lesions, names + patterns
    for part in parts:
        # The same for every disease: otherwise a network would know COVID-19 by its texture.
        if np.mean(part.hu) > SOLID_HU:
            if isinstance(part, Opacity) and not part.fills:
                part.mottle_hu = float(rng.uniform(*SOLID_MOTTLE_HU))
        elif part.denser is not None:
            part.mottle_hu = float(rng.uniform(*MOTTLE_HU))
    opacities = [part for part in parts if isinstance(part, Opacity)]
    foci = [part for part in parts if isinstance(part, Focus)]
    return Drawn(tuple(names), opacities, foci, bronchi, nodes)


def _on_lung(part: Opacity | Focus, subject: Subject) -> Opacity | Focus:
    """Return a part that changes the lung as it is there: the lung of many patients is denser than usual behind."""
    if part.name == "mosaic":
        return dataclasses.replace(part, hu=-1000.0, denser=float(part.hu - subject.parenchyma_hu))
    if part.name == "dependent_atelectasis":
        return dataclasses.replace(part, denser=DENSER_HU)
    return part


def _bronchi(findings: list[str], p: Site) -> list[WideBronchi]:
    """Return where the bronchi are widened: by bronchiectasis, and by the traction of fibrosis."""
    rng = p.rng
    centres, widening = [], 0.0
    if "bronchiectasis" in findings:
        centres, widening = (
            p.points(int(rng.integers(1, 6)), (p.lungs < -8) & (p.wall.cage < -12)),
            rng.uniform(1.5, 3.2),
        )
    elif "fibrosis" in findings:
        low = (p.lungs < -8) & (p.z < 0.4 * p.subject.lung_height)
        centres, widening = p.points(4, low), rng.uniform(1.2, 2.2)
    elif "tree_in_bud" in findings or "bronchopneumonia" in findings:
        centres, widening = p.points(2, p.lungs < -12), rng.uniform(1.0, 1.5)
    return [
        WideBronchi(
            np.array(centre, np.float32), float(rng.uniform(22, 60)), float(widening), float(rng.uniform(0, 0.5))
        )
        for centre in centres
    ]
