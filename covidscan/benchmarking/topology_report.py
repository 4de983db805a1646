"""Report of what compilation for TPUs or GPUs shows, and of bounds of the speed on them."""

import dataclasses
import importlib.metadata
import json
import re

from covidscan.benchmarking import measure, roofline
from covidscan.benchmarking.chips import Chip, parse_slice
from covidscan.benchmarking.compiled_program import ProgramCost, program_cost
from covidscan.benchmarking.flops import FlopPerVolume, flop_per_volume
from covidscan.benchmarking.hardware import USABLE_SHARE, LargestBatch, largest_batch, needed_bytes
from covidscan.benchmarking.topology import SliceCompiler, compiler_package
from covidscan.config import Config
from tfds_mosmed.errors import UserError
from tfds_mosmed.preprocessing.grid import Grid
from tfds_mosmed.progress import announce

SCALED_TO = (8, 64, 256)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for a slice.

    Attributes:
      cost: on each chip.
      bound: of its duration on that slice.
      needed_flop: FLOP of the network's own definition on each chip; a program has more where zeros fill its matrices.
      share_of_peak: of the peak FLOP/s, at most, that needed FLOP reach.
    """

    cost: ProgramCost
    bound: roofline.Bound
    needed_flop: float
    share_of_peak: float


@dataclasses.dataclass(frozen=True)
class TopologyReport:
    """Results of compiling for a slice. Nothing in them is measured; durations are lower bounds, rates upper ones.

    Attributes:
      model: name of the network.
      size: of lung_resnet; None for other networks.
      width: channels of its first stage, or None: the default.
      dtype: of the computation.
      grid: of the studies, ROWSxCOLUMNSxSLICES.
      topology: name of the slice.
      chips: number of chips.
      batch_size: global.
      chip: specifications.
      train: the training step.
      evaluation: the evaluation step.
      largest_batch_per_chip: studies of the largest training step that fits into 90 % of the memory.
      largest_batch_bytes: that it takes on a chip.
      scaling: with the same studies per chip.
      records_per_second_per_host: that a host with as many chips as a host can have must deliver at the bound.
      versions: of JAX and the compiler.
    """

    model: str
    size: str | None
    width: int | None
    dtype: str
    grid: str
    topology: str
    chips: int
    batch_size: int
    chip: Chip
    train: CompiledStep
    evaluation: CompiledStep
    largest_batch_per_chip: int
    largest_batch_bytes: int
    scaling: tuple[roofline.Scaling, ...]
    records_per_second_per_host: float
    versions: dict[str, str]


def _largest_batch(compiler: SliceCompiler, rows: int, cost: ProgramCost) -> LargestBatch:
    """Find the largest training step that fits, from one that is compiled already, on `rows` studies."""
    usable = int(USABLE_SHARE * compiler.target.chip.memory * 1e9)

    def needed(rows: int) -> int:
        try:
            return needed_bytes(compiler.train(rows))
        except UserError as error:
            used = re.search(r"Used ([\d.]+)G of", str(error))  # of a program that is too large
            if used is None:
                raise
            return int(float(used[1]) * 2**30)

    known = {rows: cost.memory_bytes}
    row_bytes = 2 * compiler.experiment.input_shape[0] * compiler.experiment.input_shape[1] ** 2
    return largest_batch(lambda rows: known.get(rows) or needed(rows), usable, rows, row_bytes)


def compile_for(topology: str, config: Config, grid: Grid, rows: int | None) -> TopologyReport:
    """Compile an experiment's steps for a slice; progress goes to stderr.

    Args:
      topology: name of the slice.
      config: the network and its training.
      grid: of the studies.
      rows: studies on each chip, or None: as --batch_size says.

    Raises:
      UserError: the slice is unknown, the compiler is missing, the batch cannot be divided, or a step does not compile.
    """
    target = parse_slice(topology)
    if rows is None and config.batch_size % target.chips:
        fitting = max(1, config.batch_size // target.chips) * target.chips
        raise UserError(
            f"--batch_size={config.batch_size} is the global batch and must be divisible by the {target.chips} chips "
            f"of --topology={topology}: use --batch_size={fitting}"
        )
    rows = rows or config.batch_size // target.chips
    config = dataclasses.replace(config, batch_size=rows * target.chips)
    compiler = SliceCompiler(target, config, grid)
    flop = flop_per_volume(compiler.experiment, compiler.shares(rows))
    announce("1 of 3: compiling the training step, which takes some minutes")
    train = program_cost(compiler.train(rows), rows * flop.step)
    announce("2 of 3: compiling the evaluation step")
    evaluation = program_cost(compiler.evaluation(rows), rows * flop.forward)
    announce("3 of 3: compiling larger batches, some minutes each")
    largest = _largest_batch(compiler, rows, train)
    return _report(compiler, flop, train, evaluation, largest)


def _report(
    compiler: SliceCompiler, flop: FlopPerVolume, train: ProgramCost, evaluation: ProgramCost, largest: LargestBatch
) -> TopologyReport:
    experiment, target = compiler.experiment, compiler.target
    config, (slices, rows, columns, _) = experiment.config, experiment.input_shape
    per_chip = config.batch_size // target.chips

    def compiled_step(cost: ProgramCost, flop_per_study: float) -> CompiledStep:
        limit, needed = roofline.bound(cost, target.chip, target.chips), flop_per_study * per_chip
        return CompiledStep(cost, limit, needed, needed / limit.step_seconds / (target.chip.bfloat16 * 1e12))

    one_host = roofline.scaling(train, evaluation, per_chip, target.chip, target.chip.chips_per_host)
    return TopologyReport(
        model=config.model,
        size=config.size if config.model == "lung_resnet" else None,
        width=config.width,
        dtype=experiment.dtype.name,
        grid=f"{rows}x{columns}x{slices}",
        topology=target.name,
        chips=target.chips,
        batch_size=config.batch_size,
        chip=target.chip,
        train=compiled_step(train, flop.step),
        evaluation=compiled_step(evaluation, flop.forward),
        largest_batch_per_chip=largest.rows,
        largest_batch_bytes=largest.needed_bytes,
        scaling=tuple(
            roofline.scaling(train, evaluation, per_chip, target.chip, chips)
            for chips in sorted({*SCALED_TO, target.chips})
            if chips <= target.chip.most_chips
        ),
        records_per_second_per_host=one_host.studies_per_second,
        versions={name: importlib.metadata.version(name) for name in ("jax", compiler_package(target))},
    )


def text(report: TopologyReport) -> str:
    """Format a report, one line per topic."""
    chip = report.chip

    def seconds(compiled: CompiledStep) -> str:
        limit = compiled.bound
        return (
            f"at least {limit.step_seconds * 1e3:.3g} ms, limited by {limit.limited_by} (compute "
            f"{limit.compute_seconds * 1e3:.3g}, memory {limit.memory_seconds * 1e3:.3g}, interconnect "
            f"{limit.interconnect_seconds * 1e3:.3g} ms): at most {compiled.share_of_peak:.1%} of the peak"
        )

    def cost(compiled: CompiledStep) -> str:
        each = compiled.cost
        moved = ", ".join(
            f"{found.count} {found.kind} of {found.bytes / 1e6:.3g} MB"
            + (" beside other work" if found.overlapped else "")
            for found in each.collectives
        )
        return (
            f"{each.flop / 1e9:.4g} GFLOP, of which the network needs {compiled.needed_flop / 1e9:.4g}, "
            f"{each.bytes_accessed / 1e9:.3g} GB read and written, memory "
            f"{each.memory_bytes / 1e9:.3g} GB a chip; {moved or 'no collectives'}; {each.host_transfers} transfers "
            "with the host"
        )

    def scaled(scaling: roofline.Scaling) -> str:
        return (
            f"at most {scaling.studies_per_second:.4g} studies/s, efficiency {scaling.efficiency:.1%}; "
            f"{roofline.FULL_EPOCHS} epochs of {roofline.FULL_TRAIN} studies at least {scaling.full_hours:.2g} h"
        )

    lines = [
        ("training", f"compiles: {cost(report.train)}"),
        ("", seconds(report.train)),
        ("evaluation", f"compiles: {cost(report.evaluation)}"),
        ("", seconds(report.evaluation)),
        (
            "largest batch",
            f"{report.largest_batch_per_chip * report.chips}, {report.largest_batch_per_chip} a chip, "
            f"{report.largest_batch_bytes / 1e9:.3g} of {USABLE_SHARE * chip.memory:.3g} GB",
        ),
        *((f"{scaling.chips} chips", scaled(scaling)) for scaling in report.scaling),
        (
            "input",
            f"a host of {chip.chips_per_host} chips must deliver {report.records_per_second_per_host:.4g} records/s to "
            "reach the bound",
        ),
        (
            "chip",
            f"{chip.bfloat16:g} TFLOP/s in bfloat16, {chip.memory:g} GB at {chip.memory_bandwidth:g} GB/s, links "
            f"{chip.interconnect_bandwidth:g} GB/s ({chip.source})",
        ),
    ]
    if chip.is_gpu:
        counted = (
            "FLOP that the network needs; read and written are operands and results of each kernel, in full; memory is "
            "without cuDNN's workspace"
        )
        lines.append(("counted", counted))
    network = report.model + (f" of size {report.size}" if report.size else "")
    head = (
        f"{network}, width {report.width or 'as its default'}, {report.dtype}, grid {report.grid}, global "
        f"batch {report.batch_size}, compiled for {report.topology}: bounds, not measurements"
    )
    return "\n".join([head, *(f"  {name:14} {value}" for name, value in lines)])


def compile_and_save(topology: str, config: Config, grid: str, rows: int | None, output: str) -> None:
    """Compile for a slice, print a table and write the report as JSON; arguments as of `compile_for`.

    Raises:
      OSError: the file cannot be written.
    """
    path = measure.output_file(output)
    report = compile_for(topology, config, Grid.parse(grid), rows)
    described = dataclasses.asdict(report) | {"chip": report.chip._asdict()}
    path.write_text(json.dumps(described, indent=2) + "\n")
    print(text(report))
    print(f"The same as JSON: {path}")
