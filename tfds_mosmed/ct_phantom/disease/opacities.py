"""A region of changed lung, the common currency of COVID-like lesions and of their mimics."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Opacity:
    """Lung whose density is drawn towards another one.

    Attributes:
      distance: signed distance-like field, mm, negative inside, (slice, row, column) on the coarse grid.
      width: mm over which the edge fades.
      hu: density that is reached well inside; a number or a field like `distance`.
      weave: strength of a net of thickened septa inside, 0 .. 1 (crazy paving).
      lesion: counts as a COVID-like lesion, so that it belongs to the mask.
      outside_lung: takes the place of lung (pleural fluid), so that the lung mask ends at it.
    """

    distance: np.ndarray
    width: float
    hu: float | np.ndarray
    weave: float = 0.0
    lesion: bool = False
    outside_lung: bool = False
