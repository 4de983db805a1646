"""Layers for volumes of shape (batch, slice, row, column, channel), with one set of parameters on every platform."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.convolution import convolve_direct, convolve_on_cpu

Initializer = Callable[..., jax.Array]
Window = tuple[int, ...]  # (slice, row, column)

MAX_ROWS_BY_SUMS = 8  # measured on two cores


class Conv3D(nn.Module):
    """A 3-D convolution of stride one whose lowering is chosen by platform.

    Attributes:
      features: number of output channels.
      kernel_size: taps along (slice, row, column).
      padding: "SAME" or "VALID".
      use_bias: whether a bias is added.
      dtype: dtype of the computation; parameters are float32.
      kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    padding: str = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column, channel) to the same with `features` channels."""
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        y = lax.platform_dependent(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            cpu=lambda x, kernel: convolve_on_cpu(x, kernel, self.padding),
            default=lambda x, kernel: convolve_direct(x, kernel, self.padding),
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


def _blocks(x: jax.Array, window: Window) -> jax.Array:
    """View (b, s, r, c, ch) as (b, s', ws, r', wr, c', wc, ch); what does not fill a window is dropped."""
    sizes = [size // step for size, step in zip(x.shape[1:4], window, strict=True)]
    s, r, c = (size * step for size, step in zip(sizes, window, strict=True))
    (ws, wr, wc), (ns, nr, nc) = window, sizes
    return x[:, :s, :r, :c].reshape(x.shape[0], ns, ws, nr, wr, nc, wc, x.shape[-1])


def max_pool(x: jax.Array, window: Window) -> jax.Array:
    """Take the maximum over disjoint windows (slice, row, column).

    Comparisons two by two: XLA's select-and-scatter is slow on CPUs, and the gradient of a maximum over an axis divides
    by the number of places that equal it, which is 0 where a compiler computes `x` twice with different rounding.
    """
    blocks = _blocks(x, window)
    for axis, step in zip((2, 3, 4), window, strict=True):  # each pass takes an axis away
        best, *others = (lax.index_in_dim(blocks, place, axis, keepdims=False) for place in range(step))
        for other in others:
            best = jnp.where(best >= other, best, other)
        blocks = best
    return blocks


def average_pool(x: jax.Array, window: Window) -> jax.Array:
    """Take the mean over disjoint windows (slice, row, column)."""
    return _blocks(x, window).mean(axis=(2, 4, 6))


def space_to_channels(x: jax.Array, window: Window) -> jax.Array:
    """Stack the voxels of disjoint windows (slice, row, column) as channels, in place of a strided convolution.

    What is next to each other along columns stays so: whole runs are copied, twice as fast on CPUs as a transposition.
    """
    blocks = _blocks(x, window)  # (b, s', ws, r', wr, c', wc, ch)
    runs = blocks.reshape(*blocks.shape[:6], -1)
    ws, wr, _ = window
    return jnp.concatenate([runs[:, :, i, :, j] for i in range(ws) for j in range(wr)], axis=-1)


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
