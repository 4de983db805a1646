"""Training state: parameters, batch statistics, optimiser, running mean of the parameters."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


class TrainState(flax.struct.PyTreeNode):
    """One copy of everything that a step updates.

    Attributes:
      step: steps taken, int32.
      params: the network's parameters, float32.
      batch_stats: running statistics of batch normalisation; empty without it.
      opt_state: the optimiser's state.
      ema_params: running mean of the parameters, used for predictions; empty where --ema_decay=0.
      ema_batch_stats: running mean of the batch statistics, which belongs to `ema_params`; empty as these are.
      skipped: updates left out because they were not finite, int32.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema_params: Any
    ema_batch_stats: Any
    skipped: jax.Array


def create_train_state(
    model: nn.Module, tx: optax.GradientTransformation, input_shape: tuple[int, ...], seed: int, ema: bool
) -> TrainState:
    """Initialise a state in one compiled call.

    Args:
      model: the network.
      tx: the optimiser.
      input_shape: (slice, row, column, window) of one example.
      seed: seed of the parameters.
      ema: whether a running mean of the parameters is kept.
    """

    @jax.jit
    def create() -> TrainState:
        variables = model.init(jax.random.key(seed), jnp.zeros((1, *input_shape)))
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=tx.init(params),
            ema_params=params if ema else {},
            ema_batch_stats=variables.get("batch_stats", {}) if ema else {},
            skipped=jnp.zeros((), jnp.int32),
        )

    return create()
