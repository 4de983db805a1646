"""Training and judging 3D networks on chest CT with JAX."""

__version__ = "0.1.0"
