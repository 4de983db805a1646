"""Opacity: a region of changed lung, which COVID-like lesions and other findings consist of."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Opacity:
    """Region in which the density of the lung is changed.

    Attributes:
      distance: signed distance-like field, mm, negative inside, (slice, row, column) on the coarse grid.
      width: mm over which the edge fades.
      hu: density inside, away from the edge; a number or a field like `distance`.
      weave: strength of a net of thickened septa inside, 0 .. 1 (crazy paving).
      lesion: whether it is a COVID-like lesion, and so part of the lesion mask.
      outside_lung: whether it displaces the lung (pleural fluid), so that the lung mask ends at it.
    """

    distance: np.ndarray
    width: float
    hu: float | np.ndarray
    weave: float = 0.0
    lesion: bool = False
    outside_lung: bool = False
