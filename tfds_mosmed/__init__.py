"""Chest CT studies as TFDS data sets: files -> HU volumes -> records. Needs neither JAX nor TensorFlow."""
