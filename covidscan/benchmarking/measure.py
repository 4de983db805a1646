"""Measurements of a network, one after the other."""

import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from covidscan.benchmarking import table
from covidscan.benchmarking.flops import flop_per_volume
from covidscan.benchmarking.hardware import largest_batch, machine_peak, needed_bytes, peak_memory, usable_bytes
from covidscan.benchmarking.step_parts import make_parts
from covidscan.benchmarking.synthetic_records import abstract_shares, batches, make_records
from covidscan.benchmarking.timing import (
    batches_per_second,
    empty_cache,
    median_seconds,
    time_compilation,
    time_loop,
)
from covidscan.config import Config
from covidscan.data.feed import Batch, prefetch_to_devices
from covidscan.distributed import devices
from covidscan.training.experiment import Experiment, create_experiment
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.progress import announce, duration

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
NUM_LABELS = 2
NUM_RECORDS = 64  # repeated as often as the batch size needs
STEPS_BUDGET_SECONDS, INPUT_BUDGET_SECONDS = 20.0, 2.0


def measure_and_save(config: Config, grid: str, output: str) -> None:
    """Measure, print a table and write the results as JSON.

    Args:
      config: the network and its training.
      grid: ROWSxCOLUMNSxSLICES.
      output: the JSON file.

    Raises:
      UserError: a flag is wrong, or the batch does not fit into memory.
      OSError: the file cannot be written.
    """
    sizes, path = Grid.parse(grid), output_file(output)
    devices.share_of_batch(config.batch_size)
    with empty_cache():
        results = measure(config, sizes)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(table.text(results))
    print(f"The same as JSON: {path}")


def output_file(output: str) -> Path:
    """Return the file of --output.

    Raises:
      UserError: it is a folder, or in none.
    """
    path = Path(output)
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--output={output} must be a file in a folder that exists: make the folder, or name another")
    return path


def measure(config: Config, grid: Grid) -> dict[str, Any]:
    """Measure a network on all devices of this process; progress goes to stderr.

    Args:
      config: the network and its training; --batch_size is divisible by the devices.
      grid: of the studies.

    Returns:
      The results as JSON can hold them, units in their names.

    Raises:
      UserError: the batch does not fit into memory.
    """
    records = make_records(NUM_RECORDS, grid.shape)
    experiment = create_experiment(config, NUM_LABELS, grid.shape, num_train=NUM_RECORDS)
    train_step: Any = experiment.train_step()

    def lower(batch_size: int) -> Any:
        return train_step.lower(experiment.abstract_state(), abstract_shares(records, batch_size))

    announce("1 of 5: compiling the training step twice, which takes from seconds to some minutes")
    compilation = time_compilation(lambda: lower(config.batch_size))
    needed, usable = needed_bytes(compilation.compiled), usable_bytes()
    if usable is not None and needed > usable:
        raise _does_not_fit(config.batch_size, needed, usable, lower, records)
    compile_seconds = compilation.tracing_seconds + compilation.without_cache_seconds
    announce(f"2 of 5: timing the input pipeline for about {duration(INPUT_BUDGET_SECONDS + STEPS_BUDGET_SECONDS / 2)}")
    feeding = _time_feeding(experiment, train_step, records)
    memory = peak_memory(compilation.compiled)  # before anything but training has run
    announce(f"3 of 5: timing the parts of a step, about {duration(2 * compile_seconds + STEPS_BUDGET_SECONDS)}")
    step = _time_step(experiment, train_step, records)
    announce("4 of 5: counting FLOP, and looking up or measuring the peak of the machine")
    flop = _count_flop(experiment, records, step["step_seconds"])
    announce(f"5 of 5: compiling larger batches, about {duration(compile_seconds)} each")
    rows = config.batch_size // jax.device_count()
    return {
        **_description(experiment, grid),
        "step": step,
        "volumes_per_second": config.batch_size / step["step_seconds"],
        "flop": flop,
        "memory": {
            "peak_bytes_per_device": memory.bytes,
            "peak_source": memory.source,
            "compiled_step_bytes_per_device": needed,
            "usable_bytes_per_device": usable,
        },
        "largest_batch": None if usable is None else _largest_batch(lower, rows, usable, records),
        "input": feeding,
        "compilation": {name: value for name, value in compilation._asdict().items() if name.endswith("_seconds")},
    }


def _description(experiment: Experiment, grid: Grid) -> dict[str, Any]:
    model: Any = experiment.model
    device = jax.devices()[0]
    return {
        "model": experiment.config.model,
        "size": getattr(model, "size", None),
        "width": getattr(model, "width", None),
        "dtype": experiment.dtype.name,
        "grid": f"{grid.rows}x{grid.columns}x{grid.slices}",
        "batch_size": experiment.config.batch_size,
        "device_kind": device.device_kind,
        "platform": device.platform,
        "device_count": jax.device_count(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    }


def _time_step(experiment: Experiment, train_step: Callable, records: Batch) -> dict[str, Any]:
    """Time a training step and its parts, the batch being on the devices already.

    Augmentation, forward, forward with backward, optimiser and the whole step are programs of their own, run in turn.
    Backward, with the mean of the gradients over the replicas, is forward with backward minus forward, as medians. The
    rest of the step is norms, the check for finite numbers, gathering the outputs, and what XLA gains or loses by
    compiling all of it as one program; it may be negative.
    """
    parts = make_parts(experiment)
    update = jax.jit(parts.update, donate_argnums=0)
    augmentation = devices.pmap_to_shares(parts.augmentation)
    forward, forward_backward = map(devices.pmap_eval_step, (parts.forward, parts.forward_backward))
    batch = devices.send_to_replicas(next(batches(records, experiment.config.batch_size)))
    fixed = devices.replicate(experiment.create_state())
    inputs = augmentation(fixed, batch)
    _, gradients = forward_backward(fixed, inputs)
    state, updated = (devices.replicate(experiment.create_state()) for _ in range(2))  # both are donated

    def step() -> Any:
        nonlocal state
        state, *results = train_step(state, batch)
        return results

    def optimizer() -> Any:
        nonlocal updated
        updated = update(updated, gradients)
        return updated

    programs = {
        "step": step,
        "augmentation": lambda: augmentation(fixed, batch),
        "forward": lambda: forward(fixed, inputs),
        "forward_backward": lambda: forward_backward(fixed, inputs),
        "optimizer": optimizer,
    }
    seconds, rounds = median_seconds(programs, STEPS_BUDGET_SECONDS)
    parts_seconds = seconds["augmentation"] + seconds["forward_backward"] + seconds["optimizer"]
    return {
        "step_seconds": seconds["step"],
        "augmentation_seconds": seconds["augmentation"],
        "forward_seconds": seconds["forward"],
        "backward_seconds": seconds["forward_backward"] - seconds["forward"],
        "forward_and_backward_seconds": seconds["forward_backward"],
        "optimizer_seconds": seconds["optimizer"],
        "rest_seconds": seconds["step"] - parts_seconds,
        "rounds": rounds,
    }


def _time_feeding(experiment: Experiment, train_step: Callable, records: Batch) -> dict[str, float]:
    """Time the input pipeline, alone and feeding the training step as a training does."""
    batch_size = experiment.config.batch_size
    state = devices.replicate(experiment.create_state())

    def step(batch: Batch) -> Any:
        nonlocal state
        state, *results = train_step(state, batch)
        return results

    alone = batches_per_second(batches(records, batch_size), INPUT_BUDGET_SECONDS)
    sent = prefetch_to_devices(batches(records, batch_size))
    time_loop(step, sent, num_steps=1)  # compiles what the cache does not hold
    step_seconds = time_loop(step, sent, num_steps=1).seconds_per_step
    num_steps = min(50, max(5, round(STEPS_BUDGET_SECONDS / 2 / step_seconds)))
    loop = time_loop(step, sent, num_steps)
    return {
        "records_per_second_alone": alone * batch_size,
        "records_per_second_feeding": batch_size / loop.seconds_per_step,
        "share_of_time_waiting_for_data": loop.waiting_share,
    }


def _count_flop(experiment: Experiment, records: Batch, step_seconds: float) -> dict[str, Any]:
    """Count the FLOP of a step, and compare them with the peak of the machine."""
    batch_size = experiment.config.batch_size
    flop = flop_per_volume(experiment, abstract_shares(records, batch_size))
    peak = machine_peak(experiment.dtype)
    return {
        "forward_flop_per_volume": flop.forward,
        "step_flop_per_volume": flop.step,
        "peak_flop_per_second": peak.flop_per_second,
        "peak_source": peak.source,
        "share_of_peak": flop.step * batch_size / step_seconds / peak.flop_per_second,
    }


def _largest_batch(lower: Callable[[int], Any], rows: int, usable: int, records: Batch) -> dict[str, int]:
    """Find the largest global batch, starting with `rows` and twice as many on a device, by compiling the step."""
    count = jax.device_count()

    def needed(rows: int) -> int:
        return needed_bytes(lower(rows * count).compile())

    found = largest_batch(needed, usable, rows, row_bytes=records.volume[0].nbytes)
    return {
        "batch_size": found.rows * count,
        "batch_size_per_device": found.rows,
        "compiled_step_bytes_per_device": found.needed_bytes,
    }


def _does_not_fit(batch_size: int, needed: int, usable: int, lower: Callable[[int], Any], records: Batch) -> UserError:
    """Return an error that names the largest batch that fits into memory."""
    half = max(1, batch_size // jax.device_count() // 2)
    most = _largest_batch(lower, half, usable, records)["batch_size"]
    remedy = f"use --batch_size={most}" if most else "use a smaller --grid or --width"
    return UserError(
        f"--batch_size={batch_size} takes {needed / 1e9:.1f} GB on each device, of which {usable / 1e9:.1f} GB are "
        f"free: {remedy}"
    )
