"""Experiment of a Config: the network, its optimiser, the number of steps, and its mapped functions."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from covidscan.config import Config
from covidscan.data.records import eval_batches
from covidscan.distributed import devices, watchdog
from covidscan.metrics import recalibration
from covidscan.models import heads
from covidscan.models.views import views
from covidscan.training import state, step
from covidscan.training.crops import crop_shape
from covidscan.training.network import check_crops, create_network
from covidscan.training.optimizer import optimizer
from covidscan.training.state import TrainState


class Predict(Protocol):
    """A function that predicts rows of a data set; all processes call it together."""

    def __call__(
        self,
        variables: dict,
        volume_of: Callable[[int], np.ndarray],
        rows: np.ndarray,
        batch_ended: Callable[[int], None] = ...,
        tta: str = ...,
    ) -> np.ndarray:
        """Return the logits (row, output) of each row, on every process.

        Args:
          variables: of the network.
          volume_of: from a row to its volume.
          rows: of the data set.
          batch_ended: called after each batch, with the number of rows that are done by it.
          tta: set of views over which the logits are averaged, see `models.views`; "": none.
        """
        ...


class Experiment(NamedTuple):
    """A network with its training.

    Attributes:
      config: the run's flags.
      model: the network.
      tx: the optimiser with its schedule.
      num_labels: number of labels of the task.
      input_shape: (slice, row, column, window) of one example.
      num_steps: of the whole training.
      steps_per_evaluation: steps between two evaluations.
      scaling: of the labels of regression.
    """

    config: Config
    model: nn.Module
    tx: optax.GradientTransformation
    num_labels: int
    input_shape: tuple[int, ...]
    num_steps: int
    steps_per_evaluation: int
    scaling: heads.Scaling = heads.UNSCALED

    @property
    def steps_per_epoch(self) -> float:
        """Steps of a pass over the training studies."""
        return self.num_steps / self.config.epochs

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the computation."""
        return _dtype(self.config)

    def in_dtype(self, dtype: str) -> "Experiment":
        """Return the same network, computing in another dtype."""
        outputs = heads.num_outputs(self.config.task, self.num_labels)
        return self._replace(model=create_network(self.config, outputs, self.input_shape, jnp.dtype(dtype)))

    def check_crops(self) -> None:
        """Check that the crops of --lesion_crops fit the network and its records; UserError if not."""
        if self.config.lesion_crops:
            shape = crop_shape(self.config.lesion_crops, self.input_shape[:-1])
            variables = jax.eval_shape(step.eval_variables, self.abstract_state())
            check_crops(self.model, variables, self.input_shape, shape)

    def create_state(self) -> TrainState:
        """Initialise the state of step 0."""
        return state.create_train_state(
            self.model, self.tx, self.input_shape, self.config.seed, self.config.ema_decay > 0
        )

    def abstract_state(self) -> TrainState:
        """Return the state's shapes and dtypes without computing anything."""
        return jax.eval_shape(self.create_state)

    def replica_step(self) -> step.TrainStep:
        """Return one replica's training step."""
        return step.TrainStep(self.config, self.model, self.tx, self.num_labels, devices.REPLICAS, self.scaling)

    def train_step(self) -> Callable:
        """Return the training step over all devices: (state, batch by device) -> (state, metrics, outputs)."""
        return devices.pmap_train_step(self.replica_step())

    def train_steps(self) -> Callable:
        """Return several training steps in one, see `devices.pmap_train_steps`."""
        return devices.pmap_train_steps(step.make_train_steps(self.replica_step()))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities (row, label) of logits (row, output), float64; of regression the values (row, 1)."""
        if self.config.task == "regression":
            return np.asarray(heads.probabilities("regression", logits, self.scaling))
        return recalibration.probabilities(self.config.task, logits)

    def predictor(self) -> Predict:
        """Return a function that predicts rows of a data set."""
        eval_step = _eval_step(self.config, self.model)
        count = jax.device_count()
        batch_size = -(-self.config.batch_size // count) * count

        def predict(variables, volume_of, rows, batch_ended=lambda _: None, tta=""):
            variables = devices.replicate(variables)
            batches = eval_batches(volume_of, rows, batch_size, devices.share_of_batch(batch_size))
            logits = []
            for start, volumes in zip(range(0, len(rows), batch_size), batches, strict=True):
                of_views = []
                for view in views(tta):  # the same program for each: views are made of the volumes, on the host
                    of_views.append(np.asarray(eval_step(variables, devices.to_replicas(view.of(volumes)))))
                    watchdog.current().went_on()
                logits.append(of_views[0] if len(of_views) == 1 else np.mean(of_views, axis=0))
                batch_ended(min(batch_size, len(rows) - start))
            return np.concatenate(logits)[: len(rows)]

        return predict


@functools.lru_cache(maxsize=8)
def _eval_step(config: Config, model: nn.Module) -> Callable:
    """Return the mapped evaluation step, always the same one for a network: `pmap` compiles each function anew."""
    return devices.patient_at_first(devices.pmap_eval_step(step.make_eval_step(config, model, devices.REPLICAS)))


def resolve_dtype(config: Config, stored: Config | None = None) -> Config:
    """Resolve --dtype=auto once: to that of a run that is there, else to that of this platform.

    A threshold that was chosen in bfloat16 does not fit the probabilities that float32 computes.

    Args:
      config: the flags.
      stored: those of the run that goes on; None of a new one. Runs of older versions stored "auto", and keep it.
    """
    if config.dtype != "auto":
        return config
    return dataclasses.replace(config, dtype=stored.dtype if stored else _platform_dtype())


def _dtype(config: Config) -> jnp.dtype:
    return jnp.dtype(_platform_dtype() if config.dtype == "auto" else config.dtype)


def _platform_dtype() -> str:
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def create_experiment(
    config: Config,
    num_labels: int,
    volume_shape: tuple[int, int, int],
    num_train: int,
    scaling: heads.Scaling = heads.UNSCALED,
) -> Experiment:
    """Create the experiment of a Config.

    Args:
      config: the run's flags.
      num_labels: number of labels of the task.
      volume_shape: (slice, row, column) of a record.
      num_train: number of training studies.
      scaling: of the labels of regression.
    """
    num_steps = max(1, config.epochs * num_train // config.batch_size)
    input_shape = (*volume_shape, len(config.windows))
    return Experiment(
        config=config,
        model=create_network(config, heads.num_outputs(config.task, num_labels), input_shape, _dtype(config)),
        tx=optimizer(config, num_steps),
        num_labels=num_labels,
        input_shape=input_shape,
        num_steps=num_steps,
        steps_per_evaluation=max(1, config.eval_every * num_train // config.batch_size),
        scaling=scaling,
    )
