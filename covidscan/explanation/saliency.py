"""Saliency maps: Grad-CAM and integrated gradients of an ensemble, on the grid. Pure JAX, compiled once.

Both maps explain the log-odds of a label after recalibration, as a mean over the networks of the ensemble.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.config import is_own_network
from covidscan.metrics import thresholds
from covidscan.metrics.results import OperatingPoint
from covidscan.models import heads
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from covidscan.training.experiment import Experiment
from covidscan.training.network import has_features
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.prepare import LOWEST_HU

STEPS = 32  # of the path of integrated gradients; tests/explanation/test_saliency.py bounds the error
NEIGHBOURHOOD = 4  # gradients are averaged over a quarter of each axis


class Maps(NamedTuple):
    """Saliency maps of one label of one study.

    Attributes:
      grad_cam: float32 (slice, row, column) on the grid, 0 or more, without unit.
      integrated_gradients: float32 of the same shape: log-odds that each voxel adds or subtracts.
      label: the label; 1 is disease in the tasks "binary" and "severity".
      score: log-odds of the label.
      score_of_air: log-odds of the baseline; the integrated gradients sum to the difference.
    """

    grad_cam: np.ndarray
    integrated_gradients: np.ndarray
    label: int
    score: float
    score_of_air: float


class SaliencyMapper:
    """Computes saliency maps of an ensemble.

    Args:
      ensemble: the networks. Maps are computed in float32, whatever dtype they were trained with.

    Raises:
      UserError: a user's own network exposes no layer.
    """

    def __init__(self, ensemble: Ensemble):
        for member in ensemble.members:
            if is_own_network(member.experiment.config.model):
                _check_features(member.experiment)
        self._names = ensemble.info.label_names
        self._variables = jax.device_put([member.variables for member in ensemble.members])
        self._draw = jax.jit(lambda variables, volume, label: _draw(ensemble, variables, volume, label))
        self._begin = jax.jit(lambda variables, volume, label: _begin(ensemble, variables, volume, label))
        self._add_gradient = jax.jit(lambda variables, *args: _add_gradient(ensemble, variables, *args))

    def grad_cam(self, volume: np.ndarray, label: int | None = None) -> tuple[np.ndarray, float]:
        """Compute the Grad-CAM and the score only, in a fraction of the time of both maps; see `__call__`."""
        cam, _, score = self._draw(self._variables, volume, self._checked(label))
        return np.asarray(cam), float(score)

    def __call__(self, volume: np.ndarray, label: int | None = None) -> Maps:
        """Compute the saliency maps of a label.

        Args:
          volume: int16 HU (slice, row, column) on the grid.
          label: index of the label in the tasks "classes" and "multilabel"; None: the most probable one. Other tasks
            always explain disease.

        Raises:
          ValueError: there is no such label.
        """
        cam, explained, score = jax.device_get(self._draw(self._variables, volume, self._checked(label)))
        attributed, score_of_air = self._attribute(volume, explained)
        return Maps(cam, attributed, int(explained), float(score), score_of_air)

    def _attribute(self, volume: np.ndarray, label: int) -> tuple[np.ndarray, float]:
        """Compute integrated gradients (Sundararajan et al., ICML 2017) and the score of air.

        They are integrated from air, which is black in every window and contains neither lesions nor anatomy, so that
        every voxel of tissue can receive a share. Their sum is the score of the study minus that of air, up to the
        error of STEPS steps. One call for each step: within a loop of XLA a step takes three times as long on CPUs.

        Returns:
          float32 (slice, row, column), log-odds, summed over the windows; and the log-odds of air.
        """
        air, way, score_of_air = self._begin(self._variables, volume, label)
        total = jnp.zeros_like(way)
        for at in (np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS:
            total = self._add_gradient(self._variables, air, way, label, at, total)
        return np.einsum("zyxc,zyxc->zyx", way, total) / STEPS, float(score_of_air)

    def _checked(self, label: int | None) -> int:
        if label is not None and not 0 <= label < len(self._names):
            raise ValueError(f"label={label} must be an index into {self._names}.")
        return -1 if label is None else label


def _check_features(experiment: Experiment) -> None:
    if not has_features(experiment.model, experiment.input_shape):
        raise UserError(
            f"--model={experiment.config.model} cannot be explained, as it exposes no layer to saliency maps: call "
            "covidscan.models.layers.expose_features once in it; its weights stay valid"
        )


def _draw(ensemble: Ensemble, variables: list[dict], volume: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Compute Grad-CAM, label and score."""
    x = heads.hu_windows(volume, ensemble.info.windows)
    if thresholds.is_of_each_label(ensemble.info.task):
        label = jnp.where(label < 0, _most_probable(ensemble, variables, x), label)
    else:
        label = jnp.ones_like(label)
    networks = _networks(ensemble, variables, label)
    return _mean([grad_cam(network, x) for network in networks]), label, _mean([n.score(x) for n in networks])


def _begin(ensemble: Ensemble, variables: list[dict], volume: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Compute the windows of air, the way from there to those of a study, and the score of air."""
    x, air = (heads.hu_windows(hu, ensemble.info.windows) for hu in (volume, jnp.full_like(volume, LOWEST_HU)))
    return air, x - air, _mean([network.score(air) for network in _networks(ensemble, variables, label)])


def _add_gradient(
    ensemble: Ensemble,
    variables: list[dict],
    air: jax.Array,
    way: jax.Array,
    label: jax.Array,
    at: jax.Array,
    total: jax.Array,
) -> jax.Array:
    """Add the gradient at a share of the way from air."""
    gradient = jax.grad(lambda x: _mean([network.score(x) for network in _networks(ensemble, variables, label)]))
    return total + gradient(air + at * way)


def _mean(of: list[jax.Array]) -> jax.Array:
    return jnp.mean(jnp.stack(of), axis=0)


def _networks(ensemble: Ensemble, variables: list[dict], label: jax.Array) -> list["_Network"]:
    return [
        _Network(_float32(member), own, ensemble.info.task, chosen, label)
        for member, chosen, own in zip(ensemble.members, ensemble.operating_points, variables, strict=True)
    ]


def _float32(member: RestoredModel) -> nn.Module:
    return member.experiment.in_dtype("float32").model


def _most_probable(ensemble: Ensemble, variables: list[dict], x: jax.Array) -> jax.Array:
    task = ensemble.info.task
    probabilities = [
        heads.probabilities(
            task, heads.recalibrate(task, _float32(member).apply(own, x[None])[0], chosen.temperature, chosen.offsets)
        )
        for member, chosen, own in zip(ensemble.members, ensemble.operating_points, variables, strict=True)
    ]
    return jnp.argmax(sum(probabilities))


class _Network(NamedTuple):
    """One network and the label that is explained."""

    model: nn.Module
    variables: dict[str, Any]
    task: str
    point: OperatingPoint
    label: jax.Array

    def score(self, x: jax.Array) -> jax.Array:
        """Compute the log-odds of the label for windows (slice, row, column, window)."""
        return self._log_odds(self.model.apply(self.variables, x[None]))

    def score_of_layer(self, added: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        """Compute the log-odds after `added` is added to the layer of the Grad-CAM; return that layer too."""
        sown: Any
        logits, sown = self.model.apply(self.variables | {"perturbations": added}, x[None], mutable=["features"])
        return self._log_odds(logits), sown["features"]["shown"][0]

    def zero_addition(self, x: jax.Array) -> dict:
        """Return zeros in the shape of the layer of the Grad-CAM."""
        _, made = jax.eval_shape(lambda x: self.model.apply(self.variables, x[None], mutable=["perturbations"]), x)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made["perturbations"])

    def _log_odds(self, logits: Any) -> jax.Array:
        logits = heads.recalibrate(self.task, logits[0], self.point.temperature, self.point.offsets)
        if self.task == "severity":
            return logits[0]  # of more than the first grade
        if self.task == "multilabel":
            return logits[self.label]
        others = jnp.where(jnp.arange(len(logits)) == self.label, -jnp.inf, logits)
        return logits[self.label] - jax.nn.logsumexp(others)


def grad_cam(network: _Network, x: jax.Array) -> jax.Array:
    """Compute a Grad-CAM (Selvaraju et al., ICCV 2017) on the layer that the network sows for it.

    Gradients are averaged over a neighbourhood of each position, neither over the whole layer as in the paper, nor not
    at all as in HiResCAM (Draelos & Carin, 2020). A network that pools its highest activations has gradients at a few
    positions only. Averaged over the whole layer, they highlight everything similar to these positions, and the peak
    misses the lesion where most of the lung is diseased.

    Args:
      network: the network and the label.
      x: (slice, row, column, window).

    Returns:
      (slice, row, column), interpolated linearly between the centres of the layer's cells; 0 or more.
    """
    gradients, layer = jax.grad(network.score_of_layer, has_aux=True)(network.zero_addition(x), x)
    weights, values = gradients["added"][0], layer["values"][0]
    for axis, size in enumerate(values.shape[:3]):
        reach = size // NEIGHBOURHOOD | 1  # odd, so that it has a centre
        window = [reach if other == axis else 1 for other in range(4)]
        weights = lax.reduce_window(weights, 0.0, lax.add, window, (1, 1, 1, 1), "SAME") / reach
    cam = nn.relu((weights * values).sum(-1))
    for axis, size in enumerate(x.shape[:3]):
        position = jnp.clip((jnp.arange(size) - layer["first"][axis]) / layer["step"][axis], 0, cam.shape[axis] - 1)
        share = jnp.maximum(0, 1 - jnp.abs(position[:, None] - jnp.arange(cam.shape[axis])))
        cam = jnp.moveaxis(jnp.tensordot(share, cam, (1, axis)), 0, axis)
    return cam
