"""Features of an ensemble: what the last layer of each network sees."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from covidscan.trained_models.ensemble import Ensemble
from covidscan.trained_models.restore import RestoredModel
from covidscan.training import step
from tfds_mosmed.errors import UserError


class Embedder:
    """Computes the features of one study after another.

    The logits of a network are a linear function of its features: of the default network these are the means of the
    highest voxels of its maps, of "covidscan_cnn" 256 channels.

    Args:
      ensemble: the networks. Features are computed in float32, whatever dtype they were trained with.

    Attributes:
      layers: of each feature the network, from 0, and the layer whose input it is: "0/Dense_4".

    Raises:
      UserError: a user's own network does not end in a dense layer.
    """

    def __init__(self, ensemble: Ensemble):
        self._variables = jax.device_put([member.variables for member in ensemble.members])
        volume = jax.ShapeDtypeStruct((1, *ensemble.info.volume_shape), jnp.int16)
        names: list[str] = []
        for number, member in enumerate(ensemble.members):
            shapes = jax.eval_shape(functools.partial(_features, member), member.variables, volume)
            layer, features = next(iter(shapes.items()), ("", None))
            if features is None or features.ndim != 2:
                raise UserError(
                    f"--model={member.experiment.config.model} has no embeddings, the inputs (batch, feature) of its "
                    "last nn.Dense: leave out --embeddings"
                )
            names += [f"{number}/{layer}"] * features.shape[1]
        self.layers = tuple(names)
        self._compute = jax.jit(
            lambda variables, volume: [
                next(iter(_features(member, own, volume).values()))
                for member, own in zip(ensemble.members, variables, strict=True)
            ]
        )

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Compute the features, (feature,) float32, of int16 HU (slice, row, column) on the grid."""
        computed = jax.device_get(self._compute(self._variables, volume[None]))
        return np.concatenate([features[0] for features in computed]).astype(np.float32)


def _features(member: RestoredModel, variables: dict, volume: jax.Array) -> dict[str, jax.Array]:
    """Return the input (batch, feature) of the last dense layer, under its name."""
    last: dict[str, jax.Array] = {}

    def keep(function: Any, inputs: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            last.clear()
            last[str(context.module.name)] = inputs[0]
        return function(*inputs, **options)

    with nn.intercept_methods(keep):
        step.logits(member.experiment.config, member.experiment.in_dtype("float32").model, variables, volume)
    return last
