"""Parts of a training step as programs of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from covidscan.data.feed import Batch
from covidscan.distributed import devices
from covidscan.training.experiment import Experiment
from covidscan.training.state import TrainState
from covidscan.training.step import Inputs, mean_over_replicas


class Parts(NamedTuple):
    """One replica's parts of a training step, for a mapped replica axis but for the optimiser's.

    Attributes:
      augmentation: (TrainState, Batch) -> Inputs: augmentation and windows.
      forward: (TrainState, Inputs) -> terms of the loss, averaged over all replicas, with dropout and the batch's own
        statistics.
      forward_backward: (TrainState, Inputs) -> (terms of the loss, gradients), averaged over all replicas.
      update: (TrainState, gradients) -> the state with the next parameters, moments and running mean; not mapped.
    """

    augmentation: Callable[[TrainState, Batch], Inputs]
    forward: Callable[[TrainState, Inputs], dict[str, jax.Array]]
    forward_backward: Callable[[TrainState, Inputs], tuple[dict[str, jax.Array], Any]]
    update: Callable[[TrainState, Any], TrainState]


def make_parts(experiment: Experiment) -> Parts:
    """Make programs of the parts of an experiment's training step."""
    step = experiment.replica_step()

    def forward(state: TrainState, inputs: Inputs) -> dict[str, jax.Array]:
        _, (terms, *_) = step.loss(state.params, state, inputs)
        return mean_over_replicas(terms, devices.REPLICAS)

    def forward_backward(state: TrainState, inputs: Inputs) -> tuple[dict[str, jax.Array], Any]:
        terms, gradients, *_ = step.gradients(state, inputs)
        return terms, gradients

    def update(state: TrainState, gradients: Any) -> TrainState:
        return step.update(state, gradients, state.batch_stats)

    return Parts(step.augmented, forward, forward_backward, update)


def one_replica(program: Callable) -> Callable:
    """Map a replica's (state, share) -> anything as on a machine with one device, (1, row, …)."""
    return jax.vmap(program, in_axes=(None, 0), axis_name=devices.REPLICAS)
