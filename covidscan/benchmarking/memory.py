"""How much memory a step takes, and the largest batch that fits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from covidscan.distributed import devices

# Allocators leave gaps, and the next batch comes while a step still runs.
USABLE_SHARE = 0.9


def needed_bytes(compiled: Any) -> int:
    """Add up what a compiled program needs on each device: arguments, results, and what lies between."""
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes  # results that take their arguments' place
        + stats.temp_size_in_bytes
    )


def usable_bytes() -> int | None:
    """Tell how much memory a step may take on each device: nine tenths of its own, or of what is free on the host.

    None where a device does not say.
    """
    memory = devices.device_memory()
    sharing = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return None if memory is None else int(USABLE_SHARE * memory) // sharing


class PeakMemory(NamedTuple):
    """The most memory that training took on a device.

    Attributes:
      bytes: of one device.
      source: who says so.
    """

    bytes: int
    source: str


def peak_memory(compiled: Any) -> PeakMemory:
    """Ask the device, once steps have run, or where it does not keep count, the compiled step.

    Args:
      compiled: the training step.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return PeakMemory(stats["peak_bytes_in_use"], "the device's allocator, over compilation and training steps")
    return PeakMemory(needed_bytes(compiled), "XLA's analysis of the compiled step; this device keeps no count")


class LargestBatch(NamedTuple):
    """The largest batch that fits.

    Attributes:
      rows: volumes on each device; 0 where not even one fits.
      needed_bytes: on each device, of the step as compiled for that batch, which has not run.
    """

    rows: int
    needed_bytes: int


def largest_batch(needed: Callable[[int], int], usable: int, rows: int, row_bytes: int) -> LargestBatch:
    """Find the largest batch that fits: a straight line through two batches foretells it, and a third confirms it.

    Args:
      needed: number of rows -> bytes of a step on a device.
      usable: bytes of a device.
      rows: the smaller of the two batches; the other one is twice as large.
      row_bytes: what a row takes at the least.
    """
    low, high = needed(rows), needed(2 * rows)
    slope = max((high - low) / rows, row_bytes)
    most = int(rows + (usable - low) / slope)
    while most > 0:
        found = needed(most)
        if found <= usable:
            return LargestBatch(most, found)
        most = min(most - 1, int(most * usable / found))  # the line ended too low
    return LargestBatch(0, 0)
