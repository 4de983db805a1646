"""Benchmark of a network on the accelerators of this machine: speed, FLOP, memory, input, compilation.

  python -m covidscan.benchmark
  python -m covidscan.benchmark --model=covidscan_cnn --grid=64x64x32 --batch_size=32 --output=cnn.json
  python -m covidscan.benchmark --topology=v5e:4x4        bounds for a slice of TPUs that is not there
  python -m covidscan.benchmark --topology=h100:8         the same for GPUs

A table goes to stdout, the same results to --output as JSON. The studies are random voxels in memory; JAX, Flax, Optax
and their dependencies are all that is needed, and for --topology libtpu or a plug-in for GPUs.
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and measure, or compile."""
    config, grid, output = flags.benchmark_config(), flags.FLAGS.grid, flags.FLAGS.output
    # Imported lazily: JAX is slow to import, and --help does not need it.
    if flags.FLAGS.topology is not None:
        from covidscan.benchmarking.topology_report import compile_and_save

        compile_and_save(flags.FLAGS.topology, config, grid, None if flags.batch_size_is_given() else 8, output)
    else:
        from covidscan.benchmarking.measure import measure_and_save

        measure_and_save(config, grid, output)


if __name__ == "__main__":
    flags.define_benchmark()
    command.run(main)
