"""Lesion maps of an ensemble: the probability of lesion in each voxel, from networks that were trained with masks."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from covidscan.runs.log import read_log
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from tfds_mosmed.preprocessing.resize import resize


class LesionMapper:
    """Computes the mean lesion map of an ensemble.

    Args:
      ensemble: networks of which `has_lesion_maps` is true.
    """

    def __init__(self, ensemble: Ensemble):
        self._variables = jax.device_put([member.variables for member in ensemble.members])
        self._compute = jax.jit(lambda variables, volume: _lesion_maps(ensemble.members, variables, volume))

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Compute the probability of lesion.

        Args:
          volume: int16 HU (slice, row, column) on the grid.

        Returns:
          float32 of the same shape, 0 to 1: the mean over the networks, linear between the centres of the cells of
          their maps.
        """
        maps = jax.device_get(self._compute(self._variables, volume[None]))
        return np.mean([_to_grid(np.asarray(one[0]), volume.shape) for one in maps], axis=0)


def has_lesion_maps(members: Sequence[RestoredModel]) -> bool:
    """Return whether all networks have a lesion map that was trained with masks: then its loss is in the log."""
    return all(any("lesion_loss" in line for line in read_log(member.workdir)) for member in members)


def _lesion_maps(members: Sequence[RestoredModel], variables: list[dict], volume: jax.Array) -> list[jax.Array]:
    def compute(member: RestoredModel, own: dict) -> jax.Array:
        model = member.experiment.in_dtype("float32").model
        sown: Any
        _, sown = step.logits(member.experiment.config, model, own, volume, mutable=["lesions"])
        return jax.nn.sigmoid(sown["lesions"]["logits"][0])

    return [compute(member, own) for member, own in zip(members, variables, strict=True)]


def _to_grid(cells: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Interpolate a map whose cells are equal numbers of voxels; voxels that do not fill a cell repeat the last."""
    covered = tuple(size // number * number for size, number in zip(shape, cells.shape, strict=True))
    rest = [(0, size - done) for size, done in zip(shape, covered, strict=True)]
    return np.pad(resize(cells, covered, 0, 1), rest, mode="edge")
