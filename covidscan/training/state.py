"""What is trained: parameters, statistics, optimiser, their running mean."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from covidscan.config import Config


class TrainState(flax.struct.PyTreeNode):
    """One copy of everything that a step changes.

    Attributes:
      step: steps taken, int32.
      params: the network's parameters, float32.
      batch_stats: running statistics of batch normalisation; empty without it.
      opt_state: the optimiser's.
      ema_params: running mean of the parameters, used to judge; `params` themselves where --ema_decay=0.
      skipped: updates left out because they were not finite, int32.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema_params: Any
    skipped: jax.Array


def learning_rate(config: Config, num_steps: int) -> optax.Schedule:
    """Schedule over `num_steps`: linear warm-up, then constant or a cosine to zero (Loshchilov & Hutter, ICLR 2017)."""
    warmup = round(config.warmup * num_steps)
    if config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.cosine_decay_schedule(config.learning_rate, max(1, num_steps - warmup))
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])


def optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Gradient clipping by global norm, then Adam or AdamW; biases, scales and vectors are not decayed."""
    schedule = learning_rate(config, num_steps)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.optimizer == "adam":
        return optax.chain(clip, optax.adam(schedule))
    decayed = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(clip, optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed))


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
            skipped=jnp.zeros((), jnp.int32),
        )

    return create()
