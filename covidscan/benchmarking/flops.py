"""Floating-point operations of a training step, by XLA's cost analysis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from covidscan.benchmarking.step_parts import make_parts, one_replica
from covidscan.data.feed import Batch
from covidscan.training.experiment import Experiment
from tfds_mosmed.errors import UserError


class FlopPerVolume(NamedTuple):
    """Floating-point operations per volume; a multiply-add counts as two.

    Attributes:
      forward: of the network and its loss. Products with the zeros of padding in rows and columns do not count.
      step: of a training step: augmentation, forward, backward, and the optimiser's divided by the volumes of a device.
    """

    forward: float
    step: float


def flop_per_volume(experiment: Experiment, shares: Batch) -> FlopPerVolume:
    """Count the FLOP of a training step.

    The programs are lowered for a GPU and counted before compilation, whatever device runs them: their convolutions
    are direct, while the algorithms for CPUs (`covidscan.models.conv.winograd`) take fewer FLOP for the same results.
    Counts of compiled programs would miss what a GPU's libraries compute (github.com/jax-ml/jax/issues/22249), and XLA
    counts programs before compilation on its CPU client only (github.com/jax-ml/jax/pull/14479).

    Args:
      experiment: the network with its training.
      shares: shapes and dtypes of a global batch, (device, row, …).

    Raises:
      UserError: JAX_PLATFORMS leaves out the CPU.
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
    """Count the FLOP of one replica's program for abstract arguments."""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "JAX_PLATFORMS leaves out the CPU, for which FLOP are counted: add it, as in JAX_PLATFORMS=cuda,cpu"
        ) from error
    with jax.default_device(cpu):
        traced = jax.jit(one_replica(program)).trace(*arguments)
        analysis: Any = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return analysis["flops"]
