"""One replica's steps: pure functions of (state, batch), the same on 1, 2 or 64 devices."""

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
from covidscan.data import labels
from covidscan.models.pooling import average_pool
from covidscan.training.augment import Augmentation, augment, hu_windows
from covidscan.training.state import TrainState


class StepOutputs(NamedTuple):
    """What a training step said of the global batch, the same on every replica.

    Attributes:
      probability: (batch, label).
      label: (batch,), int32.
    """

    probability: Any
    label: Any


class Batch(NamedTuple):
    """A replica's share of a global batch.

    Attributes:
      volume: (batch, slice, row, column), HU, int16.
      label: (batch,), int32.
      weight: (batch,), float32: each example's weight in the loss.
      lesion_mask: (batch, slice, row, column), uint8, or None where lesions are not learned from.
      has_lesion_mask: (batch,), bool, or None.
    """

    volume: Any
    label: Any
    weight: Any
    lesion_mask: Any = None
    has_lesion_mask: Any = None


def _previous_in_global_batch(x: jax.Array, axis_name: str) -> jax.Array:
    """Roll the global batch by one: each example meets its neighbour, across replicas too."""
    replicas = lax.axis_size(axis_name)
    last = lax.ppermute(x[-1:], axis_name, [(i, (i + 1) % replicas) for i in range(replicas)])
    return jnp.concatenate([last, x[:-1]])


def _mixup(keys: jax.Array, values: tuple[jax.Array, ...], alpha: float, axis_name: str) -> tuple[jax.Array, ...]:
    """Blend all that belongs to an example with its neighbour in the global batch (Zhang et al., ICLR 2018)."""
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    share = jnp.maximum(share, 1 - share)  # an example stays mostly itself, and keeps its own weight

    def blend(value: jax.Array) -> jax.Array:
        weight = share.reshape(-1, *[1] * (value.ndim - 1))
        return weight * value + (1 - weight) * _previous_in_global_batch(value, axis_name)

    return tuple(map(blend, values))


def _lesion_loss(logits: jax.Array, mask: jax.Array, known: jax.Array) -> jax.Array:
    """Cross-entropy of a map of lesions against the masks.

    Args:
      logits: (batch, slice, row, column).
      mask: (batch, slice, row, column), share of each place that is lesion.
      known: (batch,), 0 for studies without a mask.

    Returns:
      (batch,): the mean over places, 0 where there is no mask.
    """
    return known * optax.sigmoid_binary_cross_entropy(logits, mask).mean(axis=(1, 2, 3))


def _on_map(model: nn.Module, variables: dict, mask: jax.Array, num_windows: int) -> jax.Array | None:
    """Bring masks (batch, slice, row, column) to the grid of the network's map of lesions; None where it has none."""
    x = jax.ShapeDtypeStruct((*mask.shape, num_windows), jnp.float32)
    _, sown = jax.eval_shape(lambda variables, x: model.apply(variables, x, mutable=["lesions"]), variables, x)
    if "lesions" not in sown:
        return None
    coarse = sown["lesions"]["logits"][0].shape
    window = tuple(size // places for size, places in zip(mask.shape[1:], coarse[1:], strict=True))
    return average_pool(mask.astype(jnp.float32)[..., None], window)[..., 0]


def mean_over_replicas(tree: Any, axis_name: str) -> Any:
    """Average what each replica has; what a single one has stays as it is, where XLA on CPUs would copy it."""
    return lax.pmean(tree, axis_name) if lax.axis_size(axis_name) > 1 else tree


def _norm(tree: Any) -> jax.Array:
    """Give the Euclidean norm of all leaves together."""
    # The barrier: squares that the optimiser takes too would be written out for both.
    return optax.tree.norm(lax.optimization_barrier(tree))


def make_train_step(
    config: Config, model: nn.Module, tx: optax.GradientTransformation, num_labels: int, axis_name: str
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array], StepOutputs]]:
    """Make one replica's training step.

    Args:
      config: the run's flags.
      model: the network.
      tx: the optimiser.
      num_labels: number of labels of the task.
      axis_name: name of the mapped replica axis; the step runs under pmap.

    Returns:
      A function of (state, batch) that returns the next state, the global batch's mean figures (loss of the task, of
      the map of lesions, norms of gradient and parameters, "finite": whether all are numbers) and its Outcome. Where
      they are not and --skip_nonfinite is set, the next state differs in its step alone, and counts it.
    """
    how = Augmentation(
        flip=config.flip,
        scale=config.scale,
        shift=config.shift,
        rotation=config.rotation,
        blur=config.blur,
        intensity=config.intensity,
        noise=config.noise,
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array], StepOutputs]:
        step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, mixup_key, dropout_key = jax.random.split(step_key, 3)
        size = batch.volume.shape[0]
        # Keys go by the place in the global batch, so that the number of replicas changes nothing.
        places = lax.axis_index(axis_name) * size + jnp.arange(size)
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        mask = batch.lesion_mask
        mask = None if mask is None else _on_map(model, variables, mask, len(config.windows))
        volume, mask = jax.vmap(augment, (0, 0, None, 0))(fold(augment_key, places), batch.volume, how, mask)
        x = hu_windows(volume, config.windows)
        target = labels.targets(config.task, batch.label, num_labels, config.label_smoothing)
        lesions = [] if mask is None else [mask, batch.has_lesion_mask.astype(jnp.float32)]
        if config.mixup:
            x, target, *lesions = _mixup(fold(mixup_key, places), (x, target, *lesions), config.mixup, axis_name)

        def loss_fn(params):
            updates: Any
            logits, updates = model.apply(
                variables | {"params": params},
                x,
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats", "lesions"],
            )
            losses = {"loss": jnp.mean(batch.weight * labels.loss(config.task, logits, target))}
            total = losses["loss"]
            if lesions:
                losses["lesion_loss"] = jnp.mean(_lesion_loss(updates["lesions"]["logits"][0], *lesions))
                total += config.lesion_loss * losses["lesion_loss"]
            return total, (losses, logits, updates)

        (_, (losses, logits, updates)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        losses, grads = mean_over_replicas((losses, grads), axis_name)
        changes, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        # The running mean starts short, so that the first steps do not weigh on it for long.
        decay = jnp.minimum(config.ema_decay, (1 + state.step) / (10 + state.step))
        updated = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=updates.get("batch_stats", {}),
            opt_state=opt_state,
            ema_params=optax.incremental_update(params, state.ema_params, 1 - decay) if config.ema_decay else {},
            skipped=state.skipped,
        )
        figures = losses | {
            "gradient_norm": _norm(grads),
            "parameter_norm": _norm(params),
        }
        finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(figures))))
        if config.skip_nonfinite:
            unchanged = state.replace(step=updated.step, skipped=state.skipped + 1)
            updated = jax.tree.map(functools.partial(jnp.where, finite), updated, unchanged)
            figures["skipped_updates"] = updated.skipped
        outcome = StepOutputs(labels.probabilities(config.task, logits), batch.label)
        return updated, figures | {"finite": finite}, lax.all_gather(outcome, axis_name, tiled=True)

    return train_step


def make_train_steps(train_step: Callable) -> Callable:
    """Make several training steps of one replica in one call, on records that are on its device.

    Args:
      train_step: see `make_train_step`.

    Returns:
      A function of (state, Batch of all training records, rows (step, batch) int32, number of steps) that takes the
      first steps of `rows`, at least one. Its figures and outcome have a leading axis of steps, zeros after the last.
    """

    def train_steps(state: TrainState, records: Batch, rows: jax.Array, num_steps: jax.Array) -> tuple:
        def batch(place: ArrayLike) -> Batch:
            # The barrier: not gathered anew by each computation that the batch is part of.
            return lax.optimization_barrier(jax.tree.map(lambda values: values[rows[place]], records))

        def take(place: jax.Array, carried: tuple) -> tuple:
            state, before = carried
            state, *said = train_step(state, batch(place))
            return state, jax.tree.map(lambda all_steps, one: all_steps.at[place].set(one), before, said)

        _, *said = jax.eval_shape(train_step, state, batch(0))
        nothing = jax.tree.map(lambda one: jnp.zeros((len(rows), *one.shape), one.dtype), said)
        if len(rows) == 1:
            state, said = take(jnp.asarray(0), (state, nothing))
        else:  # a loop of as many turns as wanted: one program, however many steps there are to the next checkpoint
            state, said = lax.fori_loop(0, num_steps, take, (state, nothing))
        return state, *said

    return train_steps


def logits(config: Config, model: nn.Module, variables: dict, volume: ArrayLike) -> Any:
    """Give a network's logits (batch, output) for HU (batch, slice, row, column)."""
    return model.apply(variables, hu_windows(volume, config.windows), train=False)


def make_eval_step(config: Config, model: nn.Module, axis_name: str) -> Callable[[dict, ArrayLike], Any]:
    """Make one replica's evaluation.

    Args:
      config: the run's flags.
      model: the network.
      axis_name: name of the mapped replica axis.

    Returns:
      A function of (variables, HU (batch, slice, row, column)) that gives the logits (global batch, output) of all
      replicas.
    """

    def eval_step(variables: dict, volume: ArrayLike) -> Any:
        return lax.all_gather(logits(config, model, variables, volume), axis_name, tiled=True)

    return eval_step


def eval_variables(state: TrainState) -> dict:
    """Take what judges from a state: the averaged parameters where there are any."""
    return {"params": state.ema_params or state.params, "batch_stats": state.batch_stats}
