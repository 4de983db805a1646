"""Processes of the compared systems, each in its own environment, and measurements that alternate between them."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfds_mosmed.errors import UserError
from tfds_mosmed.workers import ONE_THREAD

ROOT = Path(__file__).parents[2]
README = Path(__file__).with_name("README.md")
OURS, PEERS = sys.executable, str(ROOT / ".venv-peers/bin/python")
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class System(NamedTuple):
    """Command line of a system's process.

    Attributes:
      name: in the tables.
      module: of `tests.peers.systems`.
      what: the module's first argument.
      settings: its second.
      peer: whether it runs in the peers' environment.
      one_core: whether it is restricted to one thread on one core.
      environment: environment variables; by default without accelerators, and with huge pages.
    """

    name: str
    module: str
    what: str
    settings: dict[str, Any]
    peer: bool = True
    one_core: bool = False
    environment: Mapping[str, str] = ON_CPU

    def start(self) -> subprocess.Popen[str]:
        """Start its process, in a process group of its own."""
        python = PEERS if self.peer else OURS
        command = [python, "-m", f"tests.peers.systems.{self.module}", self.what, json.dumps(self.settings)]
        if self.one_core:
            command = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), *command]
        try:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self.environment | (ONE_THREAD if self.one_core else {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} does not exist: run bash tests/peers/run.sh, which installs it"
            ) from error


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[str]) -> None:
    """End a system's process and all that it started."""
    _kill(process)
    process.communicate()


class Timer:
    """Process of a system that times its tasks on request and sleeps in between."""

    def __init__(self, system: System):
        self.system = system
        self._process = system.start()

    def wait_until_ready(self) -> None:
        """Wait until all tasks are compiled; raise UserError if the process ends."""
        self._reply()

    def seconds(self, task: str, at_least: float) -> float:
        """Measure the median seconds of a task, repeated for `at_least` seconds.

        Raises:
          UserError: the process ended.
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"task": task, "seconds": at_least}) + "\n")
        self._process.stdin.flush()
        return self._reply()["seconds"]

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"{self.system.name} ({self.system.module} {self.system.settings}) ended with status "
                f"{self._process.wait()}: see above; -9 means that memory ran out"
            )
        return json.loads(line)

    def __enter__(self) -> "Timer":
        return self

    def __exit__(self, *error: object) -> None:
        end(self._process)


def alternate(
    systems: Sequence[tuple[System, Sequence[str]]], *, rounds: int, at_least: float, together: bool = True
) -> dict[tuple[str, str], list[float]]:
    """Time tasks in rounds: each round measures every system in turn, and starts with another one.

    Args:
      systems: each with its tasks.
      rounds: number of rounds.
      at_least: seconds that a task is repeated for in a round.
      together: whether all processes stay alive; otherwise each is started anew for its turn, alone in memory.

    Returns:
      (system's name, task) -> seconds of one call in each round.
    """
    found: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        timers = {system.name: stack.enter_context(Timer(system)) for system, _ in systems if together}
        for timer in timers.values():
            timer.wait_until_ready()
        for number in range(rounds):
            first = number % len(systems)
            for system, tasks in (*systems[first:], *systems[:first]):
                with contextlib.ExitStack() as turn:
                    timer = timers.get(system.name)
                    if timer is None:
                        timer = turn.enter_context(Timer(system))
                        timer.wait_until_ready()
                    for task in tasks:
                        found.setdefault((system.name, task), []).append(timer.seconds(task, at_least))
    return found


def summary(seconds: Sequence[float], ours: Sequence[float] | None = None) -> dict[str, float]:
    """Summarise rounds: median, min and max seconds; with `ours`, the median of the ratios to ours within a round."""
    found = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    if ours is not None:
        found["ratio"] = statistics.median(their / our for their, our in zip(seconds, ours, strict=True))
    return {name: round(value, 5) for name, value in found.items()}


def end_after(process: subprocess.Popen[str], seconds: float) -> threading.Timer:
    """Return a started timer that kills a process when its time is up, unless cancelled."""
    timer = threading.Timer(max(0.0, seconds), _kill, [process])
    timer.start()
    return timer
