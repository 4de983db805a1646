"""Scanners: distributions of the acquisitions of a hospital.

Sources of the ranges of `MANY`, which is to contain the scans of any hospital:
- Slices: real studies of LIDC-IDRI (Armato et al., Medical Physics 2011), COVID-CT-MD (Afshar et al., Scientific Data
  2021), NSCLC-Radiomics (Aerts et al., Nature Communications 2014) and MosMedData (Morozov et al. 2020) have slices of
  0.8 to 5 mm, of which the collections of fewer slices keep every third to tenth; 1 to 10 mm contains them. How often
  each occurs was chosen for variety.
- Pixels: fields of view of 256 to 560 mm over a matrix of 512, 0.5 to 1.1 mm, from the lungs alone to the whole couch.
- Noise: the peak of its power spectrum moves with the kernel, from soft to lung kernels by up to 0.74 cycles/mm, and
  kernels of different makers match (Solomon et al., Medical Physics 2012); its level differs by 15 to 35 % between
  scanners (Christianson et al., AJR 2015). Edges, overshoot, and the level of the noise by dose and kernel were chosen
  so that they contain those of real studies.
- Metal, couches, blankets, motion: chosen for variety.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scanner:
    """Distribution of acquisitions. Pairs are ranges of a uniform distribution unless said otherwise.

    Attributes:
      protocols: (distance of the slices in mm, thickness of a slice in mm, probability).
      slices: least and greatest number of slices.
      draws_whole_slices: whether thick slices show everything within them, or only their central plane.
      view_share: field of view as a share of the body's width.
      view_mm: least and greatest field of view.
      view_beyond_lungs_mm: least difference between field of view and the width of the rib cage.
      off_centre_mm: standard deviation of the patient's position.
      sharpness_mm: width of an edge by a soft-tissue kernel.
      noise_hu: standard deviation in water at the centre of an average body.
      noise_blur_mm: correlation length of the noise.
      breathing_mm: mean of the motion of the diaphragm during the scan.
      lung_kernel: probability of a sharp kernel.
      couches: probabilities of the kinds of couches, see `couch.draw`; None for a curved one only.
      metal: probability of metal in or on the patient.
    """

    protocols: tuple[tuple[float, float, float], ...]
    slices: tuple[int, int] = (10, 420)
    draws_whole_slices: bool = True
    view_share: tuple[float, float]
    view_mm: tuple[float, float]
    view_beyond_lungs_mm: float = 28.0
    off_centre_mm: float = 7.0
    sharpness_mm: tuple[float, float]
    noise_hu: tuple[float, float]
    noise_blur_mm: tuple[float, float]
    breathing_mm: float = 1.5
    lung_kernel: float = 0.0
    couches: dict[str, float] | None = None
    metal: float = 0.0


MOSMED = Scanner(
    protocols=(
        (8.0, 0.8, 0.1), (8.0, 1.0, 0.25), (8.0, 1.25, 0.15), (8.0, 2.0, 0.25), (8.0, 3.0, 0.15), (8.0, 5.0, 0.1)
    ),
    slices=(31, 72),
    draws_whole_slices=False,
    view_share=(0.93, 1.25),
    view_mm=(300, 560),
    view_beyond_lungs_mm=-1000,
    off_centre_mm=5,
    sharpness_mm=(0.8, 1.7),
    noise_hu=(12, 34),
    noise_blur_mm=(0.45, 0.85),
)  # fmt: skip
MANY = Scanner(
    protocols=(
        (1.0, 1.0, 0.01), (1.25, 1.25, 0.01), (2.0, 2.0, 0.03), (2.5, 2.5, 0.05), (3.0, 3.0, 0.07), (5.0, 5.0, 0.18),
        (7.0, 7.0, 0.05), (10.0, 10.0, 0.04), (6.0, 1.5, 0.05), (7.5, 2.5, 0.10), (8.0, 0.8, 0.08), (8.0, 2.0, 0.18),
        (9.0, 3.0, 0.10), (10.0, 1.25, 0.05),
    ),
    view_share=(0.78, 1.35),
    view_mm=(256, 560),
    sharpness_mm=(0.6, 1.9),
    noise_hu=(7, 34),
    noise_blur_mm=(0.4, 1.1),
    breathing_mm=2.5,
    lung_kernel=0.25,
    couches={"curved": 0.45, "flat": 0.15, "board": 0.12, "mattress": 0.28},
    metal=0.1,
)  # fmt: skip
EXTERNAL = Scanner(
    protocols=((3.0, 3.0, 0.35), (5.0, 5.0, 0.45), (7.5, 1.5, 0.2)),
    view_share=(0.82, 1.05),
    view_mm=(280, 500),
    sharpness_mm=(0.5, 1.0),
    noise_hu=(16, 42),
    noise_blur_mm=(0.3, 0.6),
    breathing_mm=2.5,
    lung_kernel=0.7,
    couches={"flat": 0.5, "mattress": 0.5},
    metal=0.2,
)
