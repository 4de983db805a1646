"""The parts of a training step as programs of their own."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from covidscan.data import labels
from covidscan.distributed import devices
from covidscan.training.augment import Augmentation, augment, hu_windows
from covidscan.training.experiment import Experiment
from covidscan.training.state import TrainState
from covidscan.training.step import Batch, mean_over_replicas


class Input(NamedTuple):
    """What the network gets of a replica's share of a batch.

    Attributes:
      x: (batch, slice, row, column, window) in [0, 1], float32.
      label: (batch,), int32.
    """

    x: Any
    label: Any


class Parts(NamedTuple):
    """One replica's parts of a training step, for a mapped replica axis.

    Attributes:
      augmentation: (None, Batch) -> Input: augmentation and windows.
      forward: (TrainState, Input) -> loss, the mean over all replicas, with dropout and the batch's own statistics.
      forward_backward: (TrainState, Input) -> (loss, gradients), both the mean over all replicas.
    """

    augmentation: Callable[[None, Batch], Input]
    forward: Callable[[TrainState, Input], jax.Array]
    forward_backward: Callable[[TrainState, Input], tuple[jax.Array, Any]]


def make_parts(experiment: Experiment) -> Parts:
    """Take a training step apart, as `steps.make_train_step` puts it together."""
    config, model = experiment.config, experiment.model
    how = Augmentation(*(getattr(config, strength) for strength in Augmentation._fields))
    key = jax.random.key(config.seed)

    def augmentation(nothing: None, batch: Batch) -> Input:
        places = lax.axis_index(devices.REPLICAS) * batch.volume.shape[0] + jnp.arange(batch.volume.shape[0])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
        volume, _ = jax.vmap(augment, (0, 0, None))(keys, batch.volume, how)
        return Input(hu_windows(volume, config.windows), batch.label)

    def loss(params: Any, batch_stats: Any, given: Input) -> jax.Array:
        logits, _ = model.apply(
            {"params": params, "batch_stats": batch_stats},
            given.x,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "lesions"],
        )
        target = labels.targets(config.task, given.label, experiment.num_labels, config.label_smoothing)
        return jnp.mean(labels.loss(config.task, logits, target))

    def forward(state: TrainState, given: Input) -> jax.Array:
        return mean_over_replicas(loss(state.params, state.batch_stats, given), devices.REPLICAS)

    def forward_backward(state: TrainState, given: Input) -> tuple[jax.Array, Any]:
        found = jax.value_and_grad(loss)(state.params, state.batch_stats, given)
        return mean_over_replicas(found, devices.REPLICAS)

    return Parts(augmentation, forward, forward_backward)


def make_update(experiment: Experiment) -> Callable[[TrainState, Any], TrainState]:
    """Make the optimiser's part: (state, gradients) -> the state with the next parameters, moments and running mean.

    The state is donated, as in training.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, gradients: Any) -> TrainState:
        changes, opt_state = experiment.tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - experiment.config.ema_decay)
        return state.replace(params=params, opt_state=opt_state, ema_params=ema_params)

    return update


def one_replica(program: Callable) -> Callable:
    """Map a replica's (state, share) -> anything as if on a machine of one device, (1, row, …)."""
    return jax.vmap(program, in_axes=(None, 0), axis_name=devices.REPLICAS)
