"""What Config stands for: the network, its optimiser, the number of steps, and predictions by them."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from covidscan import models
from covidscan.config import Config
from covidscan.data.records import eval_batches
from covidscan.distributed import devices as parallel
from covidscan.models import heads
from covidscan.training import state, step
from covidscan.training.optimizer import optimizer
from covidscan.training.state import TrainState


class Experiment(NamedTuple):
    """A network with all that trains it.

    Attributes:
      config: the run's flags.
      model: the network.
      tx: the optimiser with its schedule.
      num_labels: number of labels of the task.
      input_shape: (slice, row, column, window) of one example.
      num_steps: of the whole training.
      steps_per_evaluation: steps between two evaluations.
    """

    config: Config
    model: nn.Module
    tx: optax.GradientTransformation
    num_labels: int
    input_shape: tuple[int, ...]
    num_steps: int
    steps_per_evaluation: int

    def create_state(self) -> TrainState:
        """Initialise the state of step 0."""
        return state.create_train_state(
            self.model, self.tx, self.input_shape, self.config.seed, self.config.ema_decay > 0
        )

    def abstract_state(self) -> TrainState:
        """Give the state's shapes and dtypes without computing anything."""
        return jax.eval_shape(self.create_state)

    def replica_step(self) -> step.TrainStep:
        """Make one replica's training step."""
        return step.TrainStep(self.config, self.model, self.tx, self.num_labels, parallel.REPLICAS)

    def train_step(self) -> Callable:
        """Make the training step over all devices: (state, batch by device) -> (state, metrics, outputs)."""
        return parallel.pmap_train_step(self.replica_step())

    def train_steps(self) -> Callable:
        """Make several training steps in one, see `parallel.pmap_train_steps`."""
        return parallel.pmap_train_steps(step.make_train_steps(self.replica_step()))

    def predictor(self) -> Callable[[dict, Callable[[int], np.ndarray], np.ndarray], np.ndarray]:
        """Make a function of (variables, volume of a row, rows) that gives logits (row, output), each row once.

        All processes call it together, and each gets all logits.
        """
        eval_step = parallel.pmap_eval_step(step.make_eval_step(self.config, self.model, parallel.REPLICAS))
        devices = jax.device_count()
        batch_size = -(-self.config.batch_size // devices) * devices

        def predict(variables: dict, volume_of: Callable[[int], np.ndarray], rows: np.ndarray) -> np.ndarray:
            variables = parallel.replicate(variables)
            batches = eval_batches(volume_of, rows, batch_size, parallel.share_of_batch(batch_size))
            found = [np.asarray(eval_step(variables, parallel.to_replicas(volumes))) for volumes in batches]
            return np.concatenate(found)[: len(rows)]

        return predict


def create_experiment(
    config: Config, num_labels: int, volume_shape: tuple[int, int, int], num_train: int
) -> Experiment:
    """Create what a Config stands for.

    Args:
      config: the run's flags.
      num_labels: number of labels of the task.
      volume_shape: (slice, row, column) of a record.
      num_train: number of training studies.
    """
    on_cpu = jax.default_backend() == "cpu"
    dtype = {"auto": jnp.float32 if on_cpu else jnp.bfloat16}.get(config.dtype) or jnp.dtype(config.dtype)
    model = models.create(
        config.model,
        heads.num_outputs(config.task, num_labels),
        width=config.width,
        dropout=config.dropout,
        dtype=dtype,
        axis_name=parallel.REPLICAS,
    )
    num_steps = max(1, config.epochs * num_train // config.batch_size)
    return Experiment(
        config=config,
        model=model,
        tx=optimizer(config, num_steps),
        num_labels=num_labels,
        input_shape=(*volume_shape, len(config.windows)),
        num_steps=num_steps,
        steps_per_evaluation=max(1, config.eval_every * num_train // config.batch_size),
    )
