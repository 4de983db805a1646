"""How long programs take, and how long they wait for data."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from covidscan.data.feed import IN_FLIGHT, Batch

LEAST_ROUNDS, MOST_ROUNDS = 5, 50


class Timed(NamedTuple):
    """What `median_seconds` measured.

    Attributes:
      seconds: name of the program -> median of its seconds.
      rounds: how often each was run.
    """

    seconds: dict[str, float]
    rounds: int


def median_seconds(programs: Mapping[str, Callable[[], Any]], budget_seconds: float) -> Timed:
    """Time programs by turns, so that what else the machine does falls on all of them alike.

    Args:
      programs: name -> function that runs the program and gives its arrays, awaited or not.
      budget_seconds: about as long is measured, in no less than 5 rounds and no more than 50.
    """

    def run(program: Callable[[], Any]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(program())
        return time.perf_counter() - start

    for program in programs.values():
        run(program)  # compiles
    warm = sum(map(run, programs.values()))
    rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, round(budget_seconds / warm)))
    taken = [[run(program) for program in programs.values()] for _ in range(rounds)]
    medians = map(statistics.median, zip(*taken, strict=True))
    return Timed(dict(zip(programs, medians, strict=True)), rounds)


def batches_per_second(batches: Iterator[Batch], budget_seconds: float) -> float:
    """Measure how many batches come when nothing is done with them."""
    next(batches)
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < budget_seconds:
        next(batches)
        count += 1
        passed = time.perf_counter() - start
    return count / passed


class Fed(NamedTuple):
    """A loop of steps that take each batch as it comes.

    Attributes:
      seconds_per_step: from the first batch asked for to the last step's end, by the number of steps.
      waiting_share: of that time in which the loop waited for the next batch. The devices may have been at work still
        on the steps before: they wait for this share at most.
    """

    seconds_per_step: float
    waiting_share: float


def feed(step: Callable[[Batch], Any], batches: Iterator[Batch], num_steps: int) -> Fed:
    """Run a training loop as `covidscan.training.loop` does, some steps ahead of the devices, and see where it waits.

    Args:
      step: sends off a step on a batch and gives its figures, not awaited.
      batches: as many as are asked for.
      num_steps: steps to take.
    """
    in_flight, waiting = deque(), 0.0
    start = time.perf_counter()
    for _ in range(num_steps):
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        in_flight.append(step(batch))
        if len(in_flight) > IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(in_flight)
    total = time.perf_counter() - start
    return Fed(total / num_steps, waiting / total)
