"""Training and judging 3D networks on chest CT with JAX."""
