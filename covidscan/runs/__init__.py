"""A run's folder: configuration, checkpoints, logs, operating points."""
