"""Benchmark of a network, `python -m covidscan.benchmark`. Needs JAX, Flax, Optax and their dependencies only."""
