"""Layers for volumes of shape (batch, slice, row, column, channel), with one set of parameters on every platform."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.conv.cpu import convolve_on_cpu
from covidscan.models.conv.forms import convolve_direct
from covidscan.models.pooling import Window, max_pool

Initializer = Callable[..., jax.Array]

MAX_ROWS_BY_SUMS = 8  # measured on two cores


class Conv3D(nn.Module):
    """A 3-D convolution of stride one whose lowering is chosen by platform, and the pooling of what it gives.

    Attributes:
      features: number of output channels.
      kernel_size: taps along (slice, row, column).
      padding: "SAME" or "VALID".
      use_bias: whether a bias is added.
      dtype: dtype of the computation; parameters are float32.
      kernel_init: initializer of the kernel.
      pool: disjoint windows (slice, row, column) of which the maximum is given, or None. The bias is added after that,
        to fewer values; the result is the same.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    padding: str = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.he_normal()
    pool: Window | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column, channel) to the same with `features` channels."""
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        y = lax.platform_dependent(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            cpu=lambda x, kernel: convolve_on_cpu(x, kernel, self.padding, self.pool),
            default=lambda x, kernel: max_pool(convolve_direct(x, kernel, self.padding), self.pool or (1, 1, 1)),
        )
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


@jax.custom_vjp
def _rows_by_kernel(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _gradients_of_rows_by_kernel(kept: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_x = cotangent @ kernel.T
    # XLA sees from this that nothing reads the kernel any more: an optimiser's step writes where it stands, without a
    # copy. A barrier would say the same, but is gone before XLA decides of copies.
    cotangent = cotangent + 0 * of_x[:, :1]
    if len(x) > MAX_ROWS_BY_SUMS:
        return of_x, x.T @ cotangent
    of_kernel = lax.platform_dependent(
        x,
        cotangent,
        # Products of matrices with so little to sum over run at half of the memory's speed.
        cpu=lambda x, cotangent: functools.reduce(jnp.add, (x[row, :, None] * cotangent[row] for row in range(len(x)))),
        default=lambda x, cotangent: x.T @ cotangent,
    )
    return of_x, of_kernel


_rows_by_kernel.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _gradients_of_rows_by_kernel)


def dot_large_kernel(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """Multiply (batch, in) by a kernel (in, out) that is much larger than they: the `dot_general` of a Flax Dense.

    With a few examples a step, a CPU's time goes into passes over the kernel and its gradient; here there are fewer.
    """
    del dimension_numbers, precision  # Dense has but one way to call this
    return _rows_by_kernel(x, kernel)


def show_features(module: nn.Module, x: jax.Array, step: Window, first: tuple[float, ...]) -> jax.Array:
    """Let maps of evidence be drawn on a layer: what it gives is sown as "features", and its gradient can be asked for.

    Args:
      module: the network, in its compact method.
      x: (batch, slice, row, column, channel), what the layer gives.
      step: voxels of the input from one place of `x` to the next, (slice, row, column).
      first: voxel of the input at the middle of the first place, along the same axes.

    Returns:
      `x`, to which the variable "perturbations" is added where there is one: its gradient is that of `x`.
    """
    if module.is_initializing():
        return x  # it is none of the network's own numbers
    module.sow("features", "shown", {"values": x, "step": jnp.asarray(step), "first": jnp.asarray(first)})
    return module.perturb("added", x)


class Dropout(nn.Module):
    """Dropout whose mask depends on an example's place in the global batch, not on the number of replicas.

    Attributes:
      rate: share of values set to zero (Srivastava et al., JMLR 2014).
      axis_name: name of the mapped replica axis, or None outside of one.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Drop values of `x` (batch, …) when `train`; uses the stream "dropout"."""
        if not train or self.rate == 0:
            return x
        first = lax.axis_index(self.axis_name) * x.shape[0] if self.axis_name else 0
        key = self.make_rng("dropout")
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(first + jnp.arange(x.shape[0]))
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)
