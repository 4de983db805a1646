"""Does a map of evidence mean anything: how much of it lies in lesions and in lungs, and where its peak is. No JAX."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tfds_mosmed.preprocessing.lung_region import lung_region


class Localisation(NamedTuple):
    """How a map lies over one study; shares are of the map's positive part.

    Attributes:
      in_lesion: share within the lesion mask.
      in_lungs: share within the lungs, lesions included; None where no lungs are found.
      peak_in_lesion: whether the highest place is lesion (the pointing game of Zhang et al., IJCV 2018, without its
        margin).
      chance: share of the lungs, or of the volume where none are found, that is lesion: what a map that knows of lungs
        alone would score.
    """

    in_lesion: float
    in_lungs: float | None
    peak_in_lesion: bool
    chance: float


def localisation(
    evidence: np.ndarray, lesion_mask: np.ndarray, volume: np.ndarray, spacing_mm: Sequence[float]
) -> Localisation | None:
    """Compare a map with a study's lesions and lungs.

    Args:
      evidence: (slice, row, column); what is below 0 speaks against the answer and is left out.
      lesion_mask: of the same shape, above 0 where there is lesion.
      volume: HU, of the same shape.
      spacing_mm: of the voxels.

    Returns:
      The figures; None where the map is empty or the mask is.
    """
    positive, lesion = np.maximum(evidence, 0).astype(np.float64), lesion_mask > 0
    whole = positive.sum()
    if not whole or not lesion.any():
        return None
    region = lung_region(volume, spacing_mm)
    lungs = None if region is None else region.lungs | lesion  # dense lesions do not look like lung
    return Localisation(
        in_lesion=float(positive[lesion].sum() / whole),
        in_lungs=None if lungs is None else float(positive[lungs].sum() / whole),
        peak_in_lesion=bool(lesion.flat[positive.argmax()]),
        chance=float(lesion.mean() if lungs is None else lesion.sum() / lungs.sum()),
    )


def summarise(found: Iterable[Localisation | None]) -> dict[str, float | int | None]:
    """Take the mean of each figure over studies; "studies" counts those that have figures.

    Args:
      found: of each study.
    """
    known = [each for each in found if each is not None]
    means: dict[str, float | int | None] = {"studies": len(known)}
    for name in Localisation._fields:
        values = [getattr(each, name) for each in known if getattr(each, name) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
