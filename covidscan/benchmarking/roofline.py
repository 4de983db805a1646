"""Bounds of speed by the roofline model: what arithmetic, memory and interconnect allow by a compiler's counts.

Williams, Waterman & Patterson, Communications of the ACM 52(4), 2009.
"""

import dataclasses

from covidscan.benchmarking.chips import Chip
from covidscan.benchmarking.compiled_program import ProgramCost

# full.flags: 60 epochs of the training part of MosMedData's 1110 studies, each followed by a validation.
FULL_EPOCHS, FULL_TRAIN, FULL_VALIDATION = 60, 776, 111


@dataclasses.dataclass(frozen=True)
class Bound:
    """Lower bounds of the seconds of a program on a number of chips.

    Attributes:
      compute_seconds: its FLOP at the peak.
      memory_seconds: its bytes at the bandwidth of HBM.
      interconnect_seconds: its collectives at the bandwidth of the links, without their latency.
      step_seconds: the longer of the first two, while both go on, and collectives that nothing overlaps.
      limited_by: "compute", "memory" or "interconnect": the longest of the three.
    """

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    step_seconds: float
    limited_by: str


def bound(cost: ProgramCost, chip: Chip, chips: int) -> Bound:
    """Compute the bounds of a program.

    Args:
      cost: of each chip; compiled for any number of chips, since only the collectives depend on it.
      chip: the kind of chip.
      chips: their number.
    """
    seconds = {
        "compute": cost.flop / (chip.bfloat16 * 1e12),
        "memory": cost.bytes_accessed / (chip.memory_bandwidth * 1e9),
        "interconnect": 0.0,
    }
    exposed = 0.0
    for collective in cost.collectives:
        # A ring sends each part once, all-reduce twice: first to be summed, then as sums.
        rounds = 2 if collective.kind == "all-reduce" else 1
        taken = rounds * collective.bytes * (chips - 1) / chips / (chip.interconnect_bandwidth * 1e9)
        seconds["interconnect"] += taken
        exposed += 0 if collective.overlapped else taken
    step = max(seconds["compute"] + exposed, seconds["memory"] + exposed, seconds["interconnect"])
    return Bound(
        *seconds.values(),
        step_seconds=step,
        limited_by=max(seconds, key=seconds.__getitem__),
    )


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Upper bounds of the speed of training with the same studies per chip on another number of chips.

    Attributes:
      chips: their number.
      studies_per_second: of all chips.
      efficiency: the share of the speed of as many single chips.
      full_hours: of the epochs and studies of full.flags with its validations, without compilation, input and
        checkpoints: at least.
    """

    chips: int
    studies_per_second: float
    efficiency: float
    full_hours: float


def scaling(train: ProgramCost, evaluation: ProgramCost, rows: int, chip: Chip, chips: int) -> Scaling:
    """Compute the bounds of training and validation.

    Args:
      train: cost of a training step on each chip.
      evaluation: cost of an evaluation step.
      rows: studies of each chip in a step.
      chip: the kind of chip.
      chips: their number.
    """
    step = bound(train, chip, chips).step_seconds
    evaluated = bound(evaluation, chip, chips).step_seconds
    steps, eval_steps = FULL_EPOCHS * FULL_TRAIN // (rows * chips), FULL_EPOCHS * -(-FULL_VALIDATION // (rows * chips))
    return Scaling(
        chips=chips,
        studies_per_second=rows * chips / step,
        efficiency=bound(train, chip, 1).step_seconds / step,
        full_hours=(max(1, steps) * step + eval_steps * evaluated) / 3600,
    )
