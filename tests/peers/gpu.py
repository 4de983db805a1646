"""Measurements on one GPU, in ten minutes at most: `lung_resnet` of sizes tiny and base, and the same in PyTorch.

  python -m tests.peers.gpu --output_dir=OUT

Each job is a process of its own. OUT/gpu.json and OUT/gpu.md hold what has been measured so far; jobs for which no time
is left are left out.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.peers.gpu_tables import markdown
from tests.peers.processes import ON_CPU, System, end, end_after
from tfds_mosmed.errors import UserError

BUDGET_SECONDS = 570.0
LEAST_SECONDS = 10.0  # to start a job


class Job(NamedTuple):
    """Stages of one row, see `systems.gpu_system`."""

    size: str
    grid: str
    batch_size: int
    stages: tuple[str, ...]

    @property
    def row(self) -> str:
        """The row's name."""
        return f"{self.size}, {self.grid}, batch {self.batch_size}"


TINY, BASE = ("tiny", "128x128x32"), ("base", "256x256x40")
STEPS = ("step", "peer")
JOBS = (  # what matters most comes first; caches are timed after all steps
    Job(*TINY, 8, STEPS),
    Job(*BASE, 8, STEPS),
    Job(*BASE, 16, STEPS),
    Job(*TINY, 32, STEPS),
    Job(*BASE, 2, STEPS),
    Job(*TINY, 8, ("caches", "precision")),
    Job(*BASE, 2, ("caches", "precision")),
    Job(*BASE, 16, ("caches",)),
    Job(*TINY, 32, ("caches",)),
    Job(*BASE, 8, ("caches",)),
)
SMOKE = (Job("tiny", "16x16x8", 2, ("step", "peer", "caches", "precision")),)


def _environment(smoke: bool, compiled: str) -> dict[str, str]:
    """Return the environment of the jobs, which share compiled programs and leave PyTorch its memory."""
    # Unoptimised code, without the algorithms for CPUs, compiles several times faster.
    on_cpu = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "COVIDSCAN_DIRECT_CONV": "1"} | ON_CPU
    return {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    } | (on_cpu if smoke else {})


def _run(job: Job, smoke: bool, environment: dict[str, str], seconds: float) -> Iterator[dict[str, Any]]:
    """Run a job, for some seconds at most, and yield what it reports, or a note on why it ended."""
    settings = {**job._asdict(), "smoke": smoke}
    start = time.monotonic()
    process = System("CovidScan", "gpu_system", "measure", settings, peer=False, environment=environment).start()
    timer = end_after(process, seconds)
    try:
        assert process.stdout
        yield from map(json.loads, process.stdout)
        status = process.wait()
        if status and time.monotonic() - start >= seconds:
            yield {"note": f"{' and '.join(job.stages)} took longer than the {seconds:.0f} s that it had"}
        elif status:
            yield {"note": f"{' and '.join(job.stages)} ended with status {status}: see the terminal"}
    finally:
        timer.cancel()
        end(process)


def _write(output_dir: Path, results: dict[str, Any]) -> None:
    (output_dir / "gpu.json").write_text(json.dumps(results, indent=2) + "\n")
    (output_dir / "gpu.md").write_text(markdown(results) + "\n")


def measure(output_dir: Path, smoke: bool) -> None:
    """Run the jobs, and write results after each report.

    Raises:
      UserError: there is no GPU.
    """
    jobs, started = SMOKE if smoke else JOBS, time.monotonic()
    results: dict[str, Any] = {"date": datetime.date.today().isoformat(), "smoke": smoke, "notes": [], "rows": {}}
    results |= {"device": "unknown device", "versions": {}}
    with tempfile.TemporaryDirectory() as compiled:
        environment = _environment(smoke, compiled)
        for number, job in enumerate(jobs):
            left = BUDGET_SECONDS - (time.monotonic() - started)
            if left < LEAST_SECONDS:
                results["notes"].append(f"{job.row}: no time left for {' and '.join(job.stages)}")
                _write(output_dir, results)
                continue
            print(f"{job.row}: {', '.join(job.stages)} ({left:.0f} s left)", file=sys.stderr, flush=True)
            # A job that hangs does not take the time of all that follow.
            for found in _run(job, smoke, environment, left / min(2, len(jobs) - number)):
                if "platform" in found:
                    results |= found
                    if found["platform"] == "cpu" and not smoke:
                        raise UserError('JAX finds no GPU: install "jax[cuda13]", or try the script with --smoke')
                elif "note" in found:
                    results["notes"].append(f"{job.row}: {found['note']}")
                else:
                    values = job._asdict() | found
                    del values["stages"]
                    results["rows"].setdefault(job.row, {}).update(values)
                _write(output_dir, results)
    if not results["rows"]:
        raise UserError("nothing could be measured: see above")
    print(markdown(results))


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers.gpu", description="Measure the networks on one GPU.")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--smoke", action="store_true", help="try the script on the CPU, with a tiny network")
    given = parser.parse_args()
    try:
        given.output_dir.mkdir(parents=True, exist_ok=True)
        measure(given.output_dir, given.smoke)
    except OSError as error:
        raise UserError(f"--output_dir={given.output_dir}: {error.strerror}: name a folder to write to") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
