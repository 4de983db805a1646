"""Maps of evidence: where on the grid a network found what it says. Pure JAX, compiled once.

Both maps explain the log-odds of an answer after temperature scaling, as a mean over the networks of an ensemble.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covidscan.models.heads import hu_windows
from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from tfds_mosmed.preprocessing.prepare import LOWEST_HU

STEPS = 32  # of the path of integrated gradients; see tests/explanation/test_saliency.py for the error that is left
NEIGHBOURHOOD = 4  # gradients are averaged over this part of each axis: a quarter


class Maps(NamedTuple):
    """The evidence for one answer of one study.

    Attributes:
      grad_cam: float32 (slice, row, column) on the grid, 0 and more, in no unit.
      integrated_gradients: float32 of the same shape: the log-odds that each voxel adds, or takes away.
      label: which answer: 1 is disease in the tasks "binary" and "severity".
      score: log-odds of the answer.
      score_of_air: log-odds of the baseline; the integrated gradients add up to the difference.
    """

    grad_cam: np.ndarray
    integrated_gradients: np.ndarray
    label: int
    score: float
    score_of_air: float


class SaliencyMapper:
    """Draws the maps of evidence of an ensemble's answers.

    Args:
      ensemble: the networks. They compute in float32 here, whatever they were trained in.
    """

    def __init__(self, ensemble: Ensemble):
        self._names = ensemble.info.label_names
        self._variables = jax.device_put([member.variables for member in ensemble.members])
        self._draw = jax.jit(lambda variables, volume, label: _draw(ensemble, variables, volume, label))
        self._attribute = jax.jit(lambda variables, volume, label: _attribute(ensemble, variables, volume, label))

    def grad_cam(self, volume: np.ndarray, label: int | None = None) -> np.ndarray:
        """Draw the Grad-CAM alone, which takes a fraction of the time of both maps; see `__call__`."""
        return np.asarray(self._draw(self._variables, volume, self._checked(label))[0])

    def __call__(self, volume: np.ndarray, label: int | None = None) -> Maps:
        """Explain an answer.

        Args:
          volume: int16 HU (slice, row, column) on the grid.
          label: which answer of the task "classes"; None: the likeliest. The other tasks explain disease.
        """
        cam, answer, score = jax.device_get(self._draw(self._variables, volume, self._checked(label)))
        attributed, score_of_air = jax.device_get(self._attribute(self._variables, volume, answer))
        return Maps(cam, attributed, int(answer), float(score), float(score_of_air))

    def _checked(self, label: int | None) -> int:
        if label is not None and not 0 <= label < len(self._names):
            raise ValueError(f"label={label} must be a place in {self._names}.")
        return -1 if label is None else label


def _draw(ensemble: Ensemble, variables: list[dict], volume: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Give Grad-CAM, label and score."""
    x = hu_windows(volume, ensemble.info.windows)
    if ensemble.info.task == "classes":
        label = jnp.where(label < 0, _likeliest(ensemble, variables, x), label)
    else:
        label = jnp.ones_like(label)
    networks = _networks(ensemble, variables, label)
    return _mean([grad_cam(network, x) for network in networks]), label, _mean([n.score(x) for n in networks])


def _attribute(ensemble: Ensemble, variables: list[dict], volume: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Give integrated gradients and the score of air."""
    x, air = (hu_windows(hu, ensemble.info.windows) for hu in (volume, jnp.full_like(volume, LOWEST_HU)))
    networks = _networks(ensemble, variables, label)
    return _mean([integrated_gradients(network, x, air) for network in networks]), _mean(
        [n.score(air) for n in networks]
    )


def _mean(of: list[jax.Array]) -> jax.Array:
    return jnp.mean(jnp.stack(of), axis=0)


def _networks(ensemble: Ensemble, variables: list[dict], label: jax.Array) -> list["_Network"]:
    return [
        _Network(_float32(member), own, ensemble.info.task, chosen.temperature, label)
        for member, chosen, own in zip(ensemble.members, ensemble.choices, variables, strict=True)
    ]


def _float32(member: RestoredModel) -> nn.Module:
    return member.experiment.model.clone(dtype=jnp.float32)


def _likeliest(ensemble: Ensemble, variables: list[dict], x: jax.Array) -> jax.Array:
    said = [
        jax.nn.softmax(_float32(member).apply(own, x[None])[0] / chosen.temperature)
        for member, chosen, own in zip(ensemble.members, ensemble.choices, variables, strict=True)
    ]
    return jnp.argmax(sum(said))


class _Network(NamedTuple):
    """One network and the answer of it that is explained."""

    model: nn.Module
    variables: dict[str, Any]
    task: str
    temperature: float
    label: jax.Array

    def score(self, x: jax.Array) -> jax.Array:
        """Give the log-odds of the answer for windows (slice, row, column, window)."""
        return self._log_odds(self.model.apply(self.variables, x[None]))

    def score_of_layer(self, added: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        """Give the log-odds once something is added to the layer that maps are drawn on, and that layer."""
        sown: Any
        logits, sown = self.model.apply(self.variables | {"perturbations": added}, x[None], mutable=["features"])
        return self._log_odds(logits), sown["features"]["shown"][0]

    def nothing_added(self, x: jax.Array) -> dict:
        """Give zeros as large as the layer that maps are drawn on."""
        _, made = jax.eval_shape(lambda x: self.model.apply(self.variables, x[None], mutable=["perturbations"]), x)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made["perturbations"])

    def _log_odds(self, logits: Any) -> jax.Array:
        logits = logits[0] / self.temperature
        if self.task == "severity":
            return logits[0]  # of more than the first grade
        others = jnp.where(jnp.arange(len(logits)) == self.label, -jnp.inf, logits)
        return logits[self.label] - jax.nn.logsumexp(others)


def grad_cam(network: _Network, x: jax.Array) -> jax.Array:
    """Draw a Grad-CAM (Selvaraju et al., ICCV 2017) on the layer that the network shows.

    Gradients are averaged over a neighbourhood of each place: not over the whole layer as in the paper, nor at no
    place but its own as in HiResCAM (Draelos & Carin, 2020). A network that judges by its highest places has gradients
    at few of them; averaged over all, they light up what resembles these, and where most of the lung is diseased their
    peak misses.

    Args:
      network: with the answer.
      x: (slice, row, column, window).

    Returns:
      (slice, row, column), interpolated linearly between the middles of the layer's places; 0 and more.
    """
    gradients, layer = jax.grad(network.score_of_layer, has_aux=True)(network.nothing_added(x), x)
    gradient, values = gradients["added"][0], layer["values"][0]
    reach = tuple(size // NEIGHBOURHOOD | 1 for size in values.shape[:3])  # odd, so that it has a middle
    weights = lax.reduce_window(gradient, 0.0, lax.add, (*reach, 1), (1, 1, 1, 1), "SAME") / np.prod(reach)
    cam = nn.relu((weights * values).sum(-1))
    for axis, size in enumerate(x.shape[:3]):
        places = jnp.clip((jnp.arange(size) - layer["first"][axis]) / layer["step"][axis], 0, cam.shape[axis] - 1)
        share = jnp.maximum(0, 1 - jnp.abs(places[:, None] - jnp.arange(cam.shape[axis])))
        cam = jnp.moveaxis(jnp.tensordot(share, cam, (1, axis)), 0, axis)
    return cam


def integrated_gradients(network: _Network, x: jax.Array, baseline: jax.Array) -> jax.Array:
    """Attribute a score to voxels (Sundararajan et al., ICML 2017).

    Args:
      network: with the answer.
      x: (slice, row, column, window).
      baseline: of the same shape: where the path to `x` begins. Air, which is black in every window, has no lesion and
        no anatomy, and every voxel of tissue can be given its share.

    Returns:
      (slice, row, column), log-odds, added up over the windows. Their sum is the score of `x` less the baseline's, but
      for the error of STEPS steps.
    """

    def add(total: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        return total + jax.grad(network.score)(baseline + place * (x - baseline)), None

    total, _ = lax.scan(add, jnp.zeros_like(x), (jnp.arange(STEPS) + 0.5) / STEPS)
    return ((x - baseline) * total / STEPS).sum(-1)
