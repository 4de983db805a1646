"""Timing of programs, of their compilation, and of a loop that waits for data."""

import contextlib
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from covidscan.data.feed import IN_FLIGHT, Batch
from tfds_mosmed import early_exit

LEAST_ROUNDS, MOST_ROUNDS = 5, 50


class Timed(NamedTuple):
    """Times measured by `median_seconds`.

    Attributes:
      seconds: name of the program -> median of its seconds.
      rounds: how often each was run.
    """

    seconds: dict[str, float]
    rounds: int


def median_seconds(programs: Mapping[str, Callable[[], Any]], budget_seconds: float) -> Timed:
    """Time programs in turn, so that other load on the machine affects all of them alike.

    Args:
      programs: name -> function that runs the program and returns its arrays, awaited or not.
      budget_seconds: approximate duration of the measurement, of 5 to 50 rounds.
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
    """Measure the rate of batches when nothing is done with them."""
    next(batches)
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < budget_seconds:
        next(batches)
        count += 1
        passed = time.perf_counter() - start
    return count / passed


class LoopTime(NamedTuple):
    """Times of a training loop.

    Attributes:
      seconds_per_step: from the first request of a batch to the last step's end, divided by the number of steps.
      waiting_share: share of that time in which the loop waited for the next batch. The devices may still have worked
        on the steps before: this is an upper bound of the share that they waited.
    """

    seconds_per_step: float
    waiting_share: float


def time_loop(step: Callable[[Batch], Any], batches: Iterator[Batch], num_steps: int) -> LoopTime:
    """Run a loop that is some steps ahead of the devices, as training is, and measure how long it waits for batches.

    Args:
      step: dispatches a step on a batch and returns its results, not awaited.
      batches: at least `num_steps`.
      num_steps: steps to take.
    """
    in_flight, waiting = deque(), 0.0
    start = time.perf_counter()
    for _ in range(num_steps):
        requested = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - requested
        in_flight.append(step(batch))
        if len(in_flight) > IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(list(in_flight))  # a deque is no pytree: it would not be awaited
    total = time.perf_counter() - start
    return LoopTime(total / num_steps, waiting / total)


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Use an empty folder as the compilation cache: the user's programs are neither used nor changed.

    Enter it before anything is compiled.
    """
    with tempfile.TemporaryDirectory() as folder, early_exit.removing(Path(folder)):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        yield


class Compilation(NamedTuple):
    """Compilation times of a program.

    Attributes:
      tracing_seconds: to trace and lower the Python function; every start needs them.
      without_cache_seconds: to compile it.
      with_cache_seconds: to load it from the persistent cache instead.
      compiled: the program.
    """

    tracing_seconds: float
    without_cache_seconds: float
    with_cache_seconds: float
    compiled: Any


def time_compilation(lower: Callable[[], Any]) -> Compilation:
    """Compile a program twice, the second time from the persistent cache, which must not hold it before.

    Args:
      lower: returns the traced and lowered program.
    """
    start = time.perf_counter()
    lowered = lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    jax.clear_caches()  # in memory
    again = lower()
    restart = time.perf_counter()
    again.compile()
    return Compilation(traced - start, done - traced, time.perf_counter() - restart, compiled)
