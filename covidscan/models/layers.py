"""Layers for volumes of shape (batch, slice, row, column, channel), with one set of parameters on every platform."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covidscan.models.conv import conv3d, conv_patches
from covidscan.models.conv.lanes import maps_of_folded
from covidscan.models.conv.large_dense import dot_large_kernel
from covidscan.models.pooling import Window

Initializer = Callable[..., jax.Array]

# A dense layer whose kernel is much larger than its inputs and outputs.
LargeDense = functools.partial(nn.Dense, dot_general=dot_large_kernel)


class Conv3D(nn.Module):
    """A 3-D convolution of stride one, and max pooling of its outputs; lowered by platform and shape, see `conv3d`.

    Attributes:
      features: number of output channels.
      kernel_size: taps along (slice, row, column).
      padding: "SAME" or "VALID".
      use_bias: whether a bias is added.
      dtype: dtype of the computation; parameters are float32.
      kernel_init: initializer of the kernel.
      pool: window (slice, row, column) of max pooling, or None. The bias is added after pooling, to fewer values; the
        result is the same.
      fold: number of neighbouring columns that are folded into the channels, see `conv.lanes`.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    padding: str = "SAME"
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.he_normal()
    pool: Window | None = None
    fold: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column / fold, fold x channel) to the same with `features` channels."""
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1] // self.fold, self.features))
        y = conv3d(x.astype(self.dtype), kernel.astype(self.dtype), self.padding, self.pool, self.fold)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += jnp.tile(bias.astype(self.dtype), self.fold)
        return y


class Dense(nn.Module):
    """A linear layer with Flax's parameters, of volumes whose columns may be folded into the channels.

    Attributes:
      features: number of output channels.
      use_bias: whether a bias is added.
      dtype: dtype of the computation; parameters are float32.
      bias_init: initializer of the bias.
      fold: number of neighbouring columns that are folded into the channels, see `conv.lanes`.
      as_maps: whether the features come before the voxels: as the last axis, a few would be padded to 128 on TPUs.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    bias_init: Initializer = nn.initializers.zeros
    fold: int = 1
    as_maps: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column / fold, fold x channel) to the same with `features` channels.

        With `as_maps` to (batch, feature, fold, slice, row, column / fold).
        """
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1] // self.fold, self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.as_maps:
            y = maps_of_folded(x, kernel, self.fold)
        else:
            y = conv3d(x, kernel[None, None, None], "SAME", fold=self.fold)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
            y += bias.reshape(-1, 1, 1, 1, 1) if self.as_maps else jnp.tile(bias, self.fold)
        return y


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018), with Flax's parameters and results.

    Statistics of each channel come first, and then those of its group. Flax views channels as (group, channel of the
    group); a last axis of few channels is padded to 128 lanes on TPUs.

    Attributes:
      num_groups: number of groups.
      dtype: dtype of the result; computed in float32.
      fold: number of neighbouring columns that are folded into the channels, see `conv.lanes`.
    """

    num_groups: int
    dtype: Any = jnp.float32
    fold: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise (batch, slice, row, column / fold, fold x channel)."""
        channels = x.shape[-1] // self.fold
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        moments = jnp.stack([x.mean((1, 2, 3)), (x * x).mean((1, 2, 3))])  # (moment, batch, channel)
        of_groups = moments.reshape(*moments.shape[:2], self.fold, self.num_groups, -1).mean((2, 4))
        mean, square = jnp.repeat(of_groups, channels // self.num_groups, axis=-1)
        factor = lax.rsqrt(jnp.maximum(square - mean * mean, 0) + 1e-6) * scale
        mean, factor = (jnp.tile(each, self.fold)[:, None, None, None] for each in (mean, factor))
        return ((x - mean) * factor + jnp.tile(bias, self.fold)).astype(self.dtype)


def expose_features(module: nn.Module, x: jax.Array, step: Window, first: tuple[float, ...]) -> jax.Array:
    """Expose a layer's outputs to saliency maps: they are sown as "features", and their gradient can be computed.

    Args:
      module: the network, in its compact method.
      x: (batch, slice, row, column, channel), the layer's outputs.
      step: voxels of the input from one voxel of `x` to the next, (slice, row, column).
      first: input voxel at the centre of the first voxel of `x`, along the same axes.

    Returns:
      `x`, plus the variable "perturbations" if there is one: its gradient is that of `x`.
    """
    if module.is_initializing():
        return x  # the perturbation is not a parameter
    module.sow("features", "shown", {"values": x, "step": jnp.asarray(step), "first": jnp.asarray(first)})
    return module.perturb("added", x)


class PatchConv3D(nn.Module):
    """A convolution whose stride is its window: a product of the voxels of each patch with a kernel.

    Attributes:
      features: number of output channels.
      window: of a patch, (slice, row, column); voxels that do not fill one are dropped.
      dtype: dtype of the computation; parameters are float32.
      fold: number of neighbouring columns that are folded into the channels of the result, see `conv.lanes`.
    """

    features: int
    window: Window
    dtype: Any = jnp.float32
    fold: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, slice, row, column, channel) to (batch, slice', row', column' / fold, fold x `features`)."""
        inputs = math.prod(self.window) * x.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, 1, inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = conv_patches(x.astype(self.dtype), kernel.astype(self.dtype), self.window, self.fold)
        return y + jnp.tile(bias.astype(self.dtype), self.fold)


class Dropout(nn.Module):
    """Dropout whose mask depends on an example's position in the global batch, not on the number of replicas.

    Attributes:
      rate: share of values set to zero (Srivastava et al., JMLR 2014).
      axis_name: name of the mapped replica axis, or None outside of one.
      whole: whether an example is kept or set to zero as a whole.
    """

    rate: float
    axis_name: str | None = None
    whole: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Set values of `x` (batch, …) to zero when `train`; uses the stream "dropout"."""
        if not train or self.rate == 0:
            return x
        first = lax.axis_index(self.axis_name) * x.shape[0] if self.axis_name else 0
        key = self.make_rng("dropout")
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(first + jnp.arange(x.shape[0]))
        shape = [1] * (x.ndim - 1) if self.whole else x.shape[1:]
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, shape))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)
