"""Layers for volumes of shape (batch, slice, row, column, channel), with one set of parameters on every platform."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Initializer = Callable[..., jax.Array]
Window = tuple[int, ...]  # (slice, row, column)


def convolve_direct(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as the platform's own 3-D convolution.

    Args:
      x: (batch, slice, row, column, in_channel).
      kernel: (slice tap, row tap, column tap, in_channel, out_channel).
      padding: "SAME" or "VALID".

    Returns:
      (batch, slice, row, column, out_channel), of the dtype of `x`.
    """
    return lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1, 1), padding=padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def convolve_by_slices(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Convolve as one 2-D convolution: slice taps stacked as channels, slices folded into the batch.

    A kernel along the slices alone takes each slice's rows as one long row instead. Equal to `convolve_direct`; on CPUs
    XLA runs it two to four times faster.
    """
    taps, height, width, channels, features = kernel.shape
    if taps > 1 and height == width == 1:
        y = lax.conv_general_dilated(
            x.reshape(*x.shape[:2], -1, channels),
            kernel[:, :, 0],
            window_strides=(1, 1),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*y.shape[:2], *x.shape[2:4], features)
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), ((taps - 1) // 2, taps // 2), (0, 0), (0, 0), (0, 0)))
    batch, depth = x.shape[0], x.shape[1] - taps + 1
    stacked = jnp.concatenate([x[:, tap : tap + depth] for tap in range(taps)], axis=-1)
    planes = stacked.reshape(batch * depth, *x.shape[2:4], taps * channels)
    # (tap, row, column, in, out) -> (row, column, tap x in, out)
    plane_kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, taps * channels, features)
    if height == width == 1:
        return (planes @ plane_kernel[0, 0]).reshape(batch, depth, *x.shape[2:4], features)
    y = lax.conv_general_dilated(
        planes,
        plane_kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(batch, depth, *y.shape[1:])


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
            cpu=lambda x, kernel: convolve_by_slices(x, kernel, self.padding),
            default=lambda x, kernel: convolve_direct(x, kernel, self.padding),
        )
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


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
