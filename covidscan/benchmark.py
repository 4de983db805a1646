"""Benchmark of a network on the accelerators of this machine: speed, FLOP, memory, input, compilation.

  python -m covidscan.benchmark
  python -m covidscan.benchmark --model=covidscan_cnn --grid=64x64x32 --batch_size=32 --output=cnn.json

A table goes to stdout, the same results to --output as JSON. The studies are random voxels in memory; JAX, Flax, Optax
and their dependencies are all that is needed.
"""

from covidscan.cli import command, flags


def main() -> None:
    """Read the flags and measure."""
    # Imported lazily: JAX is slow to import, and --help does not need it.
    from covidscan.benchmarking.measure import measure_and_save

    measure_and_save(flags.benchmark_config(), flags.FLAGS.grid, flags.FLAGS.output)


if __name__ == "__main__":
    flags.define_benchmark()
    command.run(main)
