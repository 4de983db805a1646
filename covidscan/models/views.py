"""Views of a study for test-time augmentation: a network's logits are averaged over them."""

import itertools
from typing import Any, NamedTuple

import numpy as np


class View(NamedTuple):
    """One view.

    Attributes:
      mirror: whether left and right are exchanged.
      slices: by which the study is moved towards the head; those at its ends are repeated.
      scale: magnification in the plane, about the middle.
    """

    mirror: bool = False
    slices: int = 0
    scale: float = 1.0

    def of(self, volume: Any) -> Any:
        """Return the view of NumPy's or JAX's volumes (…, slice, row, column), integer HU, in their type."""
        if self.slices:
            count = volume.shape[-3]
            volume = volume[..., np.clip(np.arange(count) - self.slices, 0, count - 1), :, :]
        if self.scale != 1:
            (above, below, down), (left, right, across) = (_between(size, self.scale) for size in volume.shape[-2:])
            rows = volume[..., above, :] * (1 - down)[:, None] + volume[..., below, :] * down[:, None]
            scaled = rows[..., left] * (1 - across) + rows[..., right] * across
            volume = scaled.round().astype(volume.dtype)
        return volume[..., ::-1] if self.mirror else volume


def _between(size: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each pixel both pixels that it lies between after scaling an axis, and the second one's share."""
    middle = (size - 1) / 2
    position = np.clip((np.arange(size) - middle) / scale + middle, 0, size - 1)
    first = np.floor(position).astype(np.int32)
    return first, np.minimum(first + 1, size - 1), (position - first).astype(np.float32)


# The sets that --tta names; shifts and scales are within what training with --augmentation=medium augments by.
SETS = {
    "mirror": (View(), View(mirror=True)),
    "full": tuple(
        View(mirror, slices, scale)
        for (slices, scale), mirror in itertools.product(
            ((0, 1.0), (-1, 1.0), (1, 1.0), (0, 0.95), (0, 1.05)), (False, True)
        )
    ),
}


def views(tta: str) -> tuple[View, ...]:
    """Return the views of a set of `SETS`; the study itself of ""."""
    return SETS[tta] if tta else (View(),)
