"""Dense layer with a kernel that is much larger than its inputs and outputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.conv import thresholds


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _gradients(saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    x_gradient = cotangent @ kernel.T
    # This dependency shows XLA that nothing reads the kernel any more, so that an optimiser's step updates it in place,
    # without a copy. A barrier would express the same, but is removed before XLA decides about copies.
    cotangent = cotangent + 0 * x_gradient[:, :1]
    if len(x) > thresholds.MAX_ROWS_BY_SUMS:
        return x_gradient, x.T @ cotangent
    kernel_gradient = lax.platform_dependent(
        x,
        cotangent,
        # Matrix products with so few terms to sum run at half of the memory's speed.
        cpu=lambda x, cotangent: functools.reduce(jnp.add, (x[row, :, None] * cotangent[row] for row in range(len(x)))),
        default=lambda x, cotangent: x.T @ cotangent,
    )
    return x_gradient, kernel_gradient


_matmul.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _gradients)


def dot_large_kernel(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """Multiply (batch, in) by a much larger kernel (in, out): the `dot_general` of a Flax Dense.

    With a few examples per step, a CPU's time goes into passes over the kernel and its gradient; this makes fewer.
    """
    del dimension_numbers, precision  # Dense calls it in one way only
    return _matmul(x, kernel)
