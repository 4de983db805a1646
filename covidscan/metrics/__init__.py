"""Metrics of predictions, their intervals and tests. No JAX."""
