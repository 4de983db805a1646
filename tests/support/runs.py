"""Whole runs as users start them: real processes, the smallest phantom data set."""

import contextlib
import csv
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboardX.proto import event_pb2

ROOT = Path(__file__).parents[2]
SMALL = ("--dataset=ct_phantom/tiny", "--width=8", "--batch_size=4", "--epochs=4", "--log_every=1")
STILL = tuple(f"--{name}=0" for name in ("flip", "scale", "shift", "rotation", "blur", "intensity", "noise"))
# For what does not depend on the network: each change of flags compiles the step anew, this one in a third of the time.
FAST = (*SMALL, "--model=covidscan_cnn", *STILL)


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


may_mount = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root may mount a disk")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a disk of that size, as in "12m", on a folder, for as long as the body lasts."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # what hangs may still hold a file of it


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write below a folder, root neither, for as long as the body lasts."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Job(list):
    """The started processes of one job, process 0 first."""

    def wait(self, timeout: float) -> list[subprocess.CompletedProcess[str]]:
        """Wait for all to end."""
        deadline = time.monotonic() + timeout
        ended = [process.communicate(timeout=max(0.1, deadline - time.monotonic())) for process in self]
        return [
            subprocess.CompletedProcess(process.args, process.returncode, *output)
            for process, output in zip(self, ended, strict=True)
        ]


@contextlib.contextmanager
def job(
    command: str,
    *flags: str,
    processes: int,
    devices: int = 1,
    last: Sequence[str] = (),
    last_script: Path | None = None,
    first_environment: Mapping[str, str] | None = None,
) -> Iterator[Job]:
    """Start the processes of one job on loopback; none outlives the body.

    `last` are the last one's own flags, `last_script` is what it runs instead of the command, and `first_environment`
    are the first one's own variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = Job()
    try:
        for number in range(processes):
            place = [f"--coordinator_address={address}", f"--num_processes={processes}", f"--process_id={number}"]
            own = last if number == processes - 1 else ()
            program = [last_script] if last_script and number == processes - 1 else ["-m", f"covidscan.{command}"]
            started.append(
                subprocess.Popen(
                    [sys.executable, *program, *flags, *place, *own],
                    cwd=ROOT,
                    env=environment(devices) | dict(first_environment or {} if number == 0 else {}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def run_job(command: str, *flags: str, processes: int, devices: int) -> list[subprocess.CompletedProcess[str]]:
    """Run a job of several processes to its end."""
    with job(command, *flags, processes=processes, devices=devices) as started:
        done = started.wait(300)
    for process in done:
        assert process.returncode == 0, process.stdout + process.stderr
    return done


def wait_for_step(workdir: Path, step: int, timeout: float = 120) -> None:
    """Wait until a run has logged a step."""
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    while not (log.exists() and f'{{"step": {step}, "split": "train"' in log.read_text()):
        assert time.monotonic() < deadline, f"step {step} did not come"
        time.sleep(0.01)


def predictions(folder: Path) -> dict[str, dict[str, str]]:
    """Study id -> row of predictions.csv, each study once."""
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {row["study_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def log_lines(workdir: Path, split: str) -> list[dict]:
    """The lines of metrics.jsonl of one split."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def tensorboard_scalars(workdir: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of the event files."""
    found: dict[str, dict[int, float]] = {}
    for step, value in tensorboard_values(workdir):
        if value.HasField("simple_value"):
            found.setdefault(value.tag, {})[step] = value.simple_value
    return found


def tensorboard_values(workdir: Path) -> Iterator[tuple[int, Any]]:
    """Step and value of all in the event files: TFRecord frames of length, checksum, Event, checksum."""
    for path in workdir.glob("events.out.tfevents*"):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]
            yield from ((event.step, value) for value in event.summary.value)


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
