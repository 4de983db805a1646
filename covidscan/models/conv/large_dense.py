"""Dense layer with a kernel that is much larger than its inputs and outputs."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.conv import thresholds


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    rows = x.shape[0]  # a symbol where a model is exported for any number
    by_blocks = isinstance(rows, int) and rows in thresholds.ROWS_BY_BLOCKS
    return lax.platform_dependent(x, kernel, cpu=_multiply_blocks if by_blocks else jnp.matmul, default=jnp.matmul)


def _gradients(saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    by_blocks = len(x) in thresholds.ROWS_BY_TRANSPOSED_BLOCKS
    x_gradient = lax.platform_dependent(
        cotangent,
        kernel,
        cpu=_multiply_transposed_blocks if by_blocks else _multiply_transposed,
        default=_multiply_transposed,
    )
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


def _multiply_transposed(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    return cotangent @ kernel.T


# XLA's product of a few rows by one large kernel on CPUs takes 2 to 15 times as long as the kernel takes to be read;
# its products of a batch of kernels do not.
def _multiply_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    blocks = _blocks(kernel)
    return jnp.einsum("bgi,gio->gbo", x.reshape(len(x), len(blocks), -1), blocks).sum(0)


def _multiply_transposed_blocks(cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    blocks = _blocks(kernel)
    columns = jnp.broadcast_to(cotangent.T, (len(blocks), *cotangent.T.shape))
    return jnp.einsum("gio,gob->gib", blocks, columns).reshape(len(kernel), -1).T


def _blocks(kernel: jax.Array) -> jax.Array:
    return kernel.reshape(math.gcd(len(kernel), 8), -1, kernel.shape[1])


_matmul.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _gradients)


def dot_large_kernel(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """Multiply (batch, in) by a much larger kernel (in, out): the `dot_general` of a Flax Dense.

    With a few examples per step, a CPU's time goes into passes over the kernel and its gradient; this makes fewer.
    """
    del dimension_numbers, precision  # Dense calls it in one way only
    return _matmul(x, kernel)
