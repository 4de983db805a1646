"""Limits of the hardware: peak FLOP/s, memory, and the largest batch that fits."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from covidscan.distributed import devices

# Allocators leave gaps, and the next batch arrives while a step still runs.
USABLE_SHARE = 0.9

NVIDIA, GOOGLE = "NVIDIA's data sheet", "Google Cloud's TPU documentation"


class Accelerator(NamedTuple):
    """The stated peak of an accelerator, without sparsity.

    Attributes:
      kind: a part of JAX's name of the device.
      bfloat16: TFLOP/s.
      float32: TFLOP/s as XLA computes it unless told otherwise: in TF32 on NVIDIA's from Ampere on, in one pass of
        bfloat16 on TPUs.
      source: of the values.
    """

    kind: str
    bfloat16: float
    float32: float
    source: str


# The first match counts: L40 contains L4, GB200 contains B200. V100 and T4 have no bfloat16 units and compute it in
# float32. A device of TPU v2 and v3 is a core, half a chip; of later ones a chip.
ACCELERATORS = (
    Accelerator("V100-SXM", 15.7, 15.7, NVIDIA),
    Accelerator("V100-PCIE", 14.0, 14.0, NVIDIA),
    Accelerator("T4", 8.1, 8.1, NVIDIA),
    Accelerator("A100", 312, 156, NVIDIA),
    Accelerator("A30", 165, 82, NVIDIA),
    Accelerator("RTX A6000", 154.8, 77.4, NVIDIA),
    Accelerator("A40", 149.7, 74.8, NVIDIA),
    Accelerator("L40S", 362, 183, NVIDIA),
    Accelerator("L40", 181, 90.5, NVIDIA),
    Accelerator("L4", 121, 60, NVIDIA),
    Accelerator("RTX 3090", 71, 35.6, NVIDIA),
    Accelerator("RTX 4090", 165.2, 82.6, NVIDIA),
    Accelerator("H100 PCIe", 756, 378, NVIDIA),
    Accelerator("H100 NVL", 835, 417, NVIDIA),
    Accelerator("H100", 989, 494, NVIDIA),
    Accelerator("H200 NVL", 835, 417, NVIDIA),
    Accelerator("H200", 989, 494, NVIDIA),
    Accelerator("GB200", 2500, 1250, NVIDIA),
    Accelerator("B200", 2250, 1125, NVIDIA),
    Accelerator("TPU v2", 22.5, 22.5, GOOGLE),
    Accelerator("TPU v3", 61.5, 61.5, GOOGLE),
    Accelerator("TPU v4", 275, 275, GOOGLE),
    Accelerator("TPU v5 lite", 197, 197, GOOGLE),
    Accelerator("TPU v5e", 197, 197, GOOGLE),
    Accelerator("TPU v5", 459, 459, GOOGLE),
    Accelerator("TPU v6", 918, 918, GOOGLE),
)


class Peak(NamedTuple):
    """The peak FLOP/s of the machine.

    Attributes:
      flop_per_second: of all devices together.
      source: of the value.
    """

    flop_per_second: float
    source: str


def stated_peak(kind: str, dtype: str) -> Peak | None:
    """Return one device's stated peak, or None if it is not known.

    Args:
      kind: JAX's name of the device.
      dtype: "bfloat16" or "float32".
    """
    known = next((accelerator for accelerator in ACCELERATORS if accelerator.kind.lower() in kind.lower()), None)
    return known and Peak(getattr(known, dtype) * 1e12, known.source)


def machine_peak(dtype: Any) -> Peak:
    """Return the peak of all devices together: stated or, for CPUs and unknown accelerators, measured.

    Args:
      dtype: of the computation.
    """
    device, name = jax.devices()[0], jnp.dtype(dtype).name
    # Emulated devices of a CPU share its cores: one of them alone measures the machine.
    on_cpu = device.platform == "cpu"
    peak = stated_peak(device.device_kind, name) or _measured(dtype, 2048 if on_cpu else 8192)
    return peak if on_cpu else peak._replace(flop_per_second=peak.flop_per_second * jax.device_count())


def _measured(dtype: Any, size: int) -> Peak:
    """Time the product of square matrices on one device; the fastest of five runs counts."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(matrix, matrix))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    source = f"measured: product of two {size} x {size} matrices of {jnp.dtype(dtype).name}"
    return Peak(2 * size**3 / min(seconds), source)


def needed_bytes(compiled: Any) -> int:
    """Return the bytes that a compiled program needs on each device: arguments, results and temporaries."""
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes  # results written over their arguments
        + stats.temp_size_in_bytes
    )


def usable_bytes() -> int | None:
    """Return the bytes that a step may take on each device, or None if the device does not report its memory."""
    memory = devices.device_memory()
    sharing = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return None if memory is None else int(USABLE_SHARE * memory) // sharing


class PeakMemory(NamedTuple):
    """The peak memory of training on a device.

    Attributes:
      bytes: of one device.
      source: of the value.
    """

    bytes: int
    source: str


def peak_memory(compiled: Any) -> PeakMemory:
    """Return the peak memory as the device reports it after some steps, or else as XLA estimates it.

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
      rows: volumes on each device; 0 if not even one fits.
      needed_bytes: on each device, of the step compiled for that batch, which was not run.
    """

    rows: int
    needed_bytes: int


def largest_batch(needed: Callable[[int], int], usable: int, rows: int, row_bytes: int) -> LargestBatch:
    """Find the largest batch that fits: extrapolate linearly from two batches, then compile the result to confirm it.

    Args:
      needed: function from the number of rows to the bytes of a step on a device.
      usable: bytes of a device.
      rows: the smaller of the two batches; the other one is twice as large.
      row_bytes: lower bound of the bytes of a row.
    """
    low, high = needed(rows), needed(2 * rows)
    slope = max((high - low) / rows, row_bytes)
    most = int(rows + (usable - low) / slope)
    while most > 0:
        found = needed(most)
        if found <= usable:
            return LargestBatch(most, found)
        most = min(most - 1, int(most * usable / found))  # the extrapolation was too low
    return LargestBatch(0, 0)
