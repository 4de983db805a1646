"""The most FLOP a second that a device can do."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NVIDIA, GOOGLE = "NVIDIA's data sheet", "Google Cloud's TPU documentation"


class Known(NamedTuple):
    """The stated peak of an accelerator, without sparsity.

    Attributes:
      kind: a part of what JAX calls the device.
      bfloat16: TFLOP/s.
      float32: TFLOP/s as XLA computes it unless told otherwise: in TF32 on NVIDIA's from Ampere on, in one pass of
        bfloat16 on TPUs.
      source: who states it.
    """

    kind: str
    bfloat16: float
    float32: float
    source: str


# The first that fits counts: L40 contains L4, GB200 contains B200. V100 and T4 have no units for bfloat16 and compute
# it in float32. A device of TPU v2 and v3 is a core, half a chip; of later ones a chip.
ACCELERATORS = (
    Known("V100-SXM", 15.7, 15.7, NVIDIA),
    Known("V100-PCIE", 14.0, 14.0, NVIDIA),
    Known("T4", 8.1, 8.1, NVIDIA),
    Known("A100", 312, 156, NVIDIA),
    Known("A30", 165, 82, NVIDIA),
    Known("RTX A6000", 154.8, 77.4, NVIDIA),
    Known("A40", 149.7, 74.8, NVIDIA),
    Known("L40S", 362, 183, NVIDIA),
    Known("L40", 181, 90.5, NVIDIA),
    Known("L4", 121, 60, NVIDIA),
    Known("RTX 3090", 71, 35.6, NVIDIA),
    Known("RTX 4090", 165.2, 82.6, NVIDIA),
    Known("H100 PCIe", 756, 378, NVIDIA),
    Known("H100 NVL", 835, 417, NVIDIA),
    Known("H100", 989, 494, NVIDIA),
    Known("H200 NVL", 835, 417, NVIDIA),
    Known("H200", 989, 494, NVIDIA),
    Known("GB200", 2500, 1250, NVIDIA),
    Known("B200", 2250, 1125, NVIDIA),
    Known("TPU v2", 22.5, 22.5, GOOGLE),
    Known("TPU v3", 61.5, 61.5, GOOGLE),
    Known("TPU v4", 275, 275, GOOGLE),
    Known("TPU v5 lite", 197, 197, GOOGLE),
    Known("TPU v5e", 197, 197, GOOGLE),
    Known("TPU v5", 459, 459, GOOGLE),
    Known("TPU v6", 918, 918, GOOGLE),
)


class Peak(NamedTuple):
    """The most FLOP a second that the machine can do.

    Attributes:
      flop_per_second: of all devices together.
      source: where the figure is from.
    """

    flop_per_second: float
    source: str


def stated_peak(kind: str, dtype: str) -> Peak | None:
    """Look up one device's peak; None where it is not known.

    Args:
      kind: what JAX calls the device.
      dtype: "bfloat16" or "float32".
    """
    known = next((known for known in ACCELERATORS if known.kind.lower() in kind.lower()), None)
    return known and Peak(getattr(known, dtype) * 1e12, known.source)


def machine_peak(dtype: Any) -> Peak:
    """Give the peak of all devices, stated or, on CPUs and unknown accelerators, measured.

    Args:
      dtype: of the computation.
    """
    device, name = jax.devices()[0], jnp.dtype(dtype).name
    # Emulated devices of a CPU share its cores: one of them alone measures the machine.
    on_cpu = device.platform == "cpu"
    peak = stated_peak(device.device_kind, name) or _measured(dtype, 2048 if on_cpu else 8192)
    return peak if on_cpu else peak._replace(flop_per_second=peak.flop_per_second * jax.device_count())


def _measured(dtype: Any, size: int) -> Peak:
    """Multiply square matrices on one device; the fastest of five times counts."""
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
