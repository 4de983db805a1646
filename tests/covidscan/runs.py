"""Whole runs as users start them: real processes, the smallest phantom data set."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto import event_pb2

ROOT = Path(__file__).parents[2]
SMALL = ("--dataset=ct_phantom/tiny", "--width=8", "--batch_size=4", "--epochs=4", "--log_every=1")
STILL = tuple(f"--{name}=0" for name in ("flip", "scale", "shift", "rotation", "blur", "intensity", "noise"))


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a user with that many CPU devices."""
    xla_flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    changed = {"XLA_FLAGS": xla_flags, "COLUMNS": "100"}
    return {name: value for name, value in os.environ.items() if name != "NPROC"} | changed


def run(command: str, *flags: str, devices: int = 1, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `python -m covidscan.COMMAND` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", f"covidscan.{command}", *flags],
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def log_lines(workdir: Path, split: str) -> list[dict]:
    """The lines of metrics.jsonl of one split."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def tensorboard_scalars(workdir: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of the event files: TFRecord frames of length, checksum, Event, checksum."""
    found: dict[str, dict[int, float]] = {}
    for path in workdir.glob("events.out.tfevents*"):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def saved_state(workdir: Path, step: int) -> dict:
    """A checkpoint's state, as Orbax alone reads it."""
    return ocp.PyTreeCheckpointer().restore((workdir / "checkpoints" / str(step) / "state").absolute())


def assert_equal_states(one: dict, other: dict) -> None:
    """Equal to the last bit, structure included."""
    leaves, others = _leaves(one), _leaves(other)
    assert leaves.keys() == others.keys()
    assert len(leaves) > 20
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, others[name], err_msg=name)


def _leaves(tree, prefix="") -> dict[str, np.ndarray]:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in items for name, leaf in _leaves(value, f"{prefix}/{key}").items()}
    return {prefix: np.asarray(tree)}
