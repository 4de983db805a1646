"""What `python -m covidscan.benchmark` measures. Needs JAX, Flax, Optax and what these bring along, no more."""
