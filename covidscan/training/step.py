"""Training and evaluation steps of one replica: pure functions of (state, batch), the same on 1, 2 or 64 devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from covidscan.config import Config
from covidscan.data.feed import Batch
from covidscan.models import heads
from covidscan.training import losses
from covidscan.training.augment import Augmentation, augment
from covidscan.training.crops import crop, crop_shape
from covidscan.training.state import TrainState


class Inputs(NamedTuple):
    """A replica's share of a batch, augmented.

    Attributes:
      x: (batch, slice, row, column, window) in [0, 1], float32.
      target: (batch, output), float32: target probabilities, or scaled labels.
      weight: (batch,), float32: each example's weight in the loss.
      lesion_mask: on the network's lesion map, (batch, slice, row, column), float32, or None.
      has_lesion_mask: (batch,), float32, or None.
    """

    x: jax.Array
    target: jax.Array
    weight: jax.Array
    lesion_mask: Any
    has_lesion_mask: Any


class StepOutputs(NamedTuple):
    """The network's outputs of a training step for the global batch, the same on every replica.

    Attributes:
      probability: (batch, label), float32; of regression the value, (batch, 1).
      label: (batch,), int32; of regression float32.
    """

    probability: Any
    label: Any


def mean_over_replicas(tree: Any, axis_name: str) -> Any:
    """Average over the replicas; a single replica's arrays are returned as they are, where XLA on CPUs would copy."""
    return lax.pmean(tree, axis_name) if lax.axis_size(axis_name) > 1 else tree


def _norm(tree: Any) -> jax.Array:
    """Compute the Euclidean norm of all leaves together."""
    # The barrier: squares that the optimiser computes too would be written out for both.
    return optax.tree.norm(lax.optimization_barrier(tree))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """One replica's training step, to be mapped over the replicas, and its parts.

    Attributes:
      config: the run's flags.
      model: the network.
      tx: the optimiser.
      num_labels: number of labels of the task.
      axis_name: name of the mapped replica axis.
      scaling: of the labels of regression.
    """

    config: Config
    model: nn.Module
    tx: optax.GradientTransformation
    num_labels: int
    axis_name: str
    scaling: heads.Scaling = heads.UNSCALED

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array], StepOutputs]:
        """Take a step.

        Returns:
          The next state; the global batch's mean metrics (loss of the task, loss of the lesion map, norms of gradient
          and parameters, "finite": whether all of these are finite numbers); and its outputs. Where they are not
          finite and --skip_nonfinite is set, the next state differs in its step alone, and counts the skipped update.
        """
        inputs = self.augmented(state, batch)
        metrics, gradients, logits, batch_stats = self.gradients(state, inputs)
        updated = self.update(state, gradients, batch_stats)
        metrics = metrics | {"gradient_norm": _norm(gradients), "parameter_norm": _norm(updated.params)}
        finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
        if self.config.skip_nonfinite:
            unchanged = state.replace(step=updated.step, skipped=state.skipped + 1)
            updated = jax.tree.map(functools.partial(jnp.where, finite), updated, unchanged)
            metrics["skipped_updates"] = updated.skipped
        outputs = StepOutputs(heads.probabilities(self.config.task, logits, self.scaling), batch.label)
        return updated, metrics | {"finite": finite}, lax.all_gather(outputs, self.axis_name, tiled=True)

    def _keys(self, state: TrainState) -> jax.Array:
        """Return the keys of augmentation, mixup, dropout and CutMix."""
        return jax.random.split(jax.random.fold_in(jax.random.key(self.config.seed), state.step), 4)

    def augmented(self, state: TrainState, batch: Batch) -> Inputs:
        """Augment a batch and scale it to the network's windows."""
        config, size = self.config, batch.volume.shape[0]
        augment_key, mixup_key, _, cutmix_key = self._keys(state)
        # Keys depend on the position in the global batch, so that the number of replicas changes nothing.
        positions = lax.axis_index(self.axis_name) * size + jnp.arange(size)
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        if config.lesion_crops:
            batch = self._cropped(fold(jax.random.fold_in(augment_key, 1), positions), batch)
        mask, has_mask, weight = batch.lesion_mask, None, batch.weight
        if mask is not None:
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            mask = losses.mask_on_map(self.model, variables, mask, len(config.windows))
        strength = Augmentation(*(getattr(config, name) for name in Augmentation._fields))
        keys = fold(augment_key, positions)
        volume, mask = jax.vmap(augment, (0, 0, None, 0))(keys, batch.volume, strength, mask)
        if mask is not None:
            has_mask = batch.has_lesion_mask.astype(jnp.float32)
        x = heads.hu_windows(volume, config.windows)
        target = losses.targets(config.task, batch.label, self.num_labels, config.label_smoothing, self.scaling)
        if config.mixup:
            x, target, mask = losses.mixup(fold(mixup_key, positions), (x, target, mask), config.mixup, self.axis_name)
            has_mask = None if has_mask is None else losses.both_known(has_mask, self.axis_name)
        if config.cutmix:
            keys = fold(cutmix_key, positions)
            (x, target, mask, weight), has_box = losses.cutmix(
                keys, (x, target, mask, weight[:, None]), config.cutmix, self.axis_name
            )
            weight = weight[:, 0]
            if has_mask is not None:
                has_mask = jnp.where(has_box, losses.both_known(has_mask, self.axis_name), has_mask)
        return Inputs(x, target, weight, mask, has_mask)

    def _cropped(self, keys: jax.Array, batch: Batch) -> Batch:
        """Crop each study. What a diseased study without a mask shows in a crop is not known: its weight is 0."""
        shape = crop_shape(self.config.lesion_crops, batch.volume.shape[1:])
        volume, mask = jax.vmap(functools.partial(crop, shape=shape))(keys, batch.volume, batch.lesion_mask)
        return batch._replace(volume=volume, lesion_mask=mask, weight=batch.weight * batch.has_lesion_mask)

    def loss(self, params: Any, state: TrainState, inputs: Inputs) -> tuple[jax.Array, tuple[dict, jax.Array, Any]]:
        """Compute this replica's mean loss.

        Args:
          params: the parameters.
          state: for the batch statistics and the step.
          inputs: of `augmented`.

        Returns:
          The loss that is minimised; and its terms, the logits (batch, output) and the next batch statistics.
        """
        updates: Any
        logits, updates = self.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            inputs.x,
            train=True,
            rngs={"dropout": self._keys(state)[2]},
            mutable=["batch_stats", "lesions"],
        )
        terms = {"loss": jnp.mean(inputs.weight * losses.loss(self.config.task, logits, inputs.target))}
        total = terms["loss"]
        if inputs.lesion_mask is not None:
            lesion_logits = updates["lesions"]["logits"][0]
            terms["lesion_loss"] = jnp.mean(
                losses.lesion_loss(lesion_logits, inputs.lesion_mask, inputs.has_lesion_mask)
            )
            total += self.config.lesion_loss * terms["lesion_loss"]
        return total, (terms, logits, updates.get("batch_stats", {}))

    def gradients(self, state: TrainState, inputs: Inputs) -> tuple[dict[str, jax.Array], Any, jax.Array, Any]:
        """Compute the gradients.

        Returns:
          The terms of the loss and the gradients, both averaged over the replicas; this replica's logits
          (batch, output); and the next batch statistics.
        """
        gradient = jax.value_and_grad(self.loss, has_aux=True)
        (_, (terms, logits, batch_stats)), gradients = gradient(state.params, state, inputs)
        terms, gradients = mean_over_replicas((terms, gradients), self.axis_name)
        return terms, gradients, logits, batch_stats

    def update(self, state: TrainState, gradients: Any, batch_stats: Any) -> TrainState:
        """Return the next state, with updated parameters, moments and running mean."""
        changes, opt_state = self.tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        # The running mean starts short, so that the first steps do not weigh on it for long.
        decay = jnp.minimum(self.config.ema_decay, (1 + state.step) / (10 + state.step))
        averaged, averaged_stats = {}, {}
        if self.config.ema_decay:
            averaged = optax.incremental_update(params, state.ema_params, 1 - decay)
            averaged_stats = optax.incremental_update(batch_stats, state.ema_batch_stats, 1 - decay)
        return TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema_params=averaged,
            ema_batch_stats=averaged_stats,
            skipped=state.skipped,
        )


def make_train_steps(train_step: Callable) -> Callable:
    """Make a function that takes several training steps of one replica, on records that are on its device.

    Args:
      train_step: (state, batch) -> (state, metrics, outputs), as of `TrainStep`.

    Returns:
      A function of (state, Batch of all training records, rows (step, batch) int32, number of steps) that takes the
      first steps of `rows`, at least one. Its metrics and outputs have a leading axis of steps, zeros after the last.
    """

    def train_steps(state: TrainState, records: Batch, rows: jax.Array, num_steps: jax.Array) -> tuple:
        def batch(index: ArrayLike) -> Batch:
            # The barrier: the batch is gathered once, not by each computation that it is part of.
            return lax.optimization_barrier(jax.tree.map(lambda values: values[rows[index]], records))

        def take(index: jax.Array, carried: tuple) -> tuple:
            state, before = carried
            state, *results = train_step(state, batch(index))
            return state, jax.tree.map(lambda all_steps, one: all_steps.at[index].set(one), before, results)

        _, *results = jax.eval_shape(train_step, state, batch(0))
        zeros = jax.tree.map(lambda one: jnp.zeros((len(rows), *one.shape), one.dtype), results)
        if len(rows) == 1:
            state, results = take(jnp.asarray(0), (state, zeros))
        else:  # a loop of a variable number of turns: one program, however many steps there are to the next checkpoint
            state, results = lax.fori_loop(0, num_steps, take, (state, zeros))
        return state, *results

    return train_steps


def logits(config: Config, model: nn.Module, variables: dict, volume: ArrayLike, **options: Any) -> Any:
    """Compute a network's logits (batch, output) for HU (batch, slice, row, column); with options of flax's `apply`."""
    return model.apply(variables, heads.hu_windows(volume, config.windows), train=False, **options)


def make_eval_step(config: Config, model: nn.Module, axis_name: str) -> Callable[[dict, ArrayLike], Any]:
    """Make one replica's evaluation step.

    Args:
      config: the run's flags.
      model: the network.
      axis_name: name of the mapped replica axis.

    Returns:
      A function of (variables, HU (batch, slice, row, column)) that returns the logits (global batch, output) of all
      replicas.
    """

    def eval_step(variables: dict, volume: ArrayLike) -> Any:
        return lax.all_gather(logits(config, model, variables, volume), axis_name, tiled=True)

    return eval_step


def eval_variables(state: TrainState) -> dict:
    """Return the variables that predict: averaged parameters and batch statistics, or these themselves if not kept."""
    return {
        "params": state.ema_params or state.params,
        "batch_stats": state.ema_batch_stats or state.batch_stats,
    }
