"""Optimizer and learning-rate schedule."""

import jax
import optax

from covidscan.config import Config


def learning_rate(config: Config, num_steps: int) -> optax.Schedule:
    """Return a schedule over `num_steps` steps: linear warm-up, then constant or cosine decay to zero.

    The cosine is that of Loshchilov & Hutter (ICLR 2017).
    """
    warmup = round(config.warmup * num_steps)
    if config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        after = optax.cosine_decay_schedule(config.learning_rate, max(1, num_steps - warmup))
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])


def optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Return Adam or AdamW after gradient clipping by global norm; biases, scales and vectors are not decayed."""
    schedule = learning_rate(config, num_steps)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.optimizer == "adam":
        return optax.chain(clip, optax.adam(schedule))
    decayed = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(clip, optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed))
