"""Measure what a training step computes and all-reduces, and model how it scales: the numbers of SCALING.md.

Usage: PYTHONPATH=. XLA_FLAGS=--xla_force_host_platform_device_count=4 .venv/bin/python launch/scaling.py
"""

import math
import os
import re

os.environ.setdefault("NPROC", "16")  # see covidscan.train

import jax
import numpy as np

from covidscan.config import Config
from covidscan.data.feed import Batch
from covidscan.distributed.devices import to_replicas
from covidscan.training.experiment import Experiment, create_experiment

GRID = (32, 128, 128)  # (slice, row, column)
NUM_STUDIES = 1110
DEVICES = (8, 64, 512)
# Assumptions of the model, each on the slow side: a 3D network's share of an H100's bfloat16 peak (989 TFLOP/s), and
# the bandwidth and latency of one message between neighbours in a ring.
SUSTAINED_FLOPS = 0.05 * 989e12
LINKS = {"NVLink or ICI": (50e9, 3e-6), "400 Gb/s Ethernet": (40e9, 15e-6), "100 Gb/s Ethernet": (10e9, 30e-6)}
OVERHEAD_S = 1e-3  # of dispatch, the same on any number of devices
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2}


def compiled_step(experiment: Experiment, per_device: int):
    """Compile the training step over all local devices without running it."""
    rows = per_device * jax.device_count()
    batch = Batch(np.zeros((rows, *GRID), np.int16), np.zeros(rows, np.int32), np.ones(rows, np.float32))
    return experiment.train_step().lower(experiment.abstract_state(), to_replicas(batch)).compile()


def collective_bytes(hlo: str, operation: str) -> int:
    """Sum the bytes that a kind of collective gives back, over all of a module."""
    total = 0
    for shapes in re.findall(rf"= (.*?) {operation}(?:-start)?\(", hlo):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            total += BYTES[dtype] * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def ring_seconds(devices: int, size: float, bandwidth: float, latency: float) -> float:
    """Time of a ring all-reduce (Patarasuk & Yuan, JPDC 2009): 2 (n - 1) messages of size / n each."""
    return 2 * (devices - 1) * (latency + size / devices / bandwidth)


def main() -> None:
    """Print what was measured, and the model's table in Markdown."""
    config = Config(batch_size=8)
    experiment = create_experiment(config, 2, GRID, NUM_STUDIES)
    compiled = compiled_step(experiment, per_device=1)
    hlo = compiled.as_text()
    reduced, gathered = (collective_bytes(hlo, name) for name in ("all-reduce", "all-gather"))
    flops = compiled.cost_analysis()["flops"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_state().params))
    print(f"jax {jax.__version__}, {jax.device_count()} {jax.default_backend()} devices")
    print(f"parameters: {parameters:,} ({4 * parameters:,} bytes)")
    print(f"all-reduced a step: {reduced:,} bytes; gathered: {gathered:,} bytes")
    print(f"computed a step and volume: {flops / 1e9:.1f} GFLOP")
    for per_device in (1, 8):
        compute = per_device * flops / SUSTAINED_FLOPS + OVERHEAD_S
        print(f"\nefficiency at {per_device} volumes a device and step ({1000 * compute:.1f} ms of compute)\n")
        print("| link | " + " | ".join(f"{n} devices" for n in DEVICES) + " |")
        print("|---|" + "---|" * len(DEVICES))
        for name, (bandwidth, latency) in LINKS.items():
            shares = [compute / (compute + ring_seconds(n, reduced, bandwidth, latency)) for n in DEVICES]
            print(f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
