"""Floating-point operations, as XLA's cost analysis counts them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from covidscan.benchmarking.step_parts import make_parts, one_replica
from covidscan.data.feed import Batch
from covidscan.training.experiment import Experiment
from tfds_mosmed.errors import UserError


class FlopPerVolume(NamedTuple):
    """Floating-point operations for one volume; a multiplication and the addition that follows it are two.

    Attributes:
      forward: of the network and its loss. Where padding adds zeros in rows and columns, what is multiplied with them
        does not count.
      step: of a training step: augmentation, forward, backward, and the optimiser's by the volumes of a device.
    """

    forward: float
    step: float


def flop_per_volume(experiment: Experiment, shares: Batch) -> FlopPerVolume:
    """Count the FLOP of a training step.

    The programs are counted as they are lowered for a GPU, before compilation, whatever device then runs them: there
    convolutions are direct, while a CPU's forms (`covidscan.models.conv.winograd`) take fewer FLOP for the same
    results.
    Compiled programs would be counted wrong: what a GPU's libraries compute is left out
    (github.com/jax-ml/jax/issues/22249), and XLA counts programs that are not compiled on its CPU client only
    (github.com/jax-ml/jax/pull/14479).

    Args:
      experiment: the network with its training.
      shares: shapes and dtypes of a global batch, (device, row, …).

    Raises:
      UserError: JAX was told to leave out the CPU.
    """
    share = jax.tree.map(lambda field: jax.ShapeDtypeStruct((1, *field.shape[1:]), field.dtype), shares)
    rows = share.label.shape[1]
    state = experiment.abstract_state()
    parts = make_parts(experiment)
    inputs = jax.eval_shape(one_replica(parts.augmentation), state, share)
    return FlopPerVolume(
        _flop(parts.forward, state, inputs) / rows, _flop(experiment.replica_step(), state, share) / rows
    )


def _flop(program: Callable, *arguments) -> float:
    """Count the FLOP of one replica's program for arguments of which shapes and dtypes are known."""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "JAX_PLATFORMS leaves out the CPU, for which FLOP are counted: add it, as in JAX_PLATFORMS=cuda,cpu"
        ) from error
    with jax.default_device(cpu):
        traced = jax.jit(one_replica(program)).trace(*arguments)
        found: Any = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return found["flops"]
