"""Chest CT studies as TFDS data sets: files -> HU volumes -> records. Free of JAX and of TensorFlow."""
