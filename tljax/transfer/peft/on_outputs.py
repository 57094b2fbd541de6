"""Bottleneck adapters and IA3: what a module gives, or takes, is changed."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.transformer import Attention, Mlp
from tljax.transfer.injection import Factory, mixed, recast
from tljax.transfer.peft.low_rank import Kernels, last_axis

SIDES = ('output', 'input')


class Adapter:
    """A bottleneck with a residual connection behind a module: h + U gelu(D h).

    Houlsby et al. 2019, section 2.1 and figure 2. U starts at zero, so that at first nothing
    changes; they start near zero. Dropout of the module's output, where there is any, comes behind
    the adapter here.
    """

    adapter_down: Any
    adapter_down_bias: Any
    adapter_up: Any
    adapter_up_bias: Any

    def __call__(self, *inputs: Any, **named: Any) -> jax.Array:
        base: Any = super()
        h = base.__call__(*inputs, **named)
        down, down_bias, up, up_bias = (
            leaf[...].astype(h.dtype)
            for leaf in (
                self.adapter_down,
                self.adapter_down_bias,
                self.adapter_up,
                self.adapter_up_bias,
            )
        )
        inner = nnx.gelu(h @ down + last_axis(down_bias, h.ndim), approximate=False)
        return h + (inner @ up + last_axis(up_bias, h.ndim))


class Ia3Output:
    """Each output multiplied by a learnt number (Liu et al. 2022, section 3.3), 1 at first."""

    kernel: Any
    bias: Any
    ia3_output: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        base: Any = super()
        y = base.__call__(x)
        return y * last_axis(self.ia3_output[...].astype(y.dtype), y.ndim)

    def merged(self) -> Kernels:
        """The kernel's columns, and the bias, multiplied."""
        factor, kernel = self.ia3_output[...], self.kernel[...]
        leaves = {'kernel': kernel * last_axis(factor, kernel.ndim)}
        return leaves if self.bias is None else {**leaves, 'bias': self.bias[...] * factor}


class Ia3Input:
    """Each input multiplied by a learnt number: that of a network's second layer there."""

    kernel: Any
    ia3_input: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        base: Any = super()
        return base.__call__(x * last_axis(self.ia3_input[...].astype(x.dtype), x.ndim))

    def merged(self) -> Kernels:
        """The kernel's rows multiplied."""
        kernel = self.kernel[...]
        return {'kernel': kernel * last_axis(self.ia3_input[...], kernel.ndim - 1)[..., None]}


def adapted(size: int) -> Factory:
    """The factory that puts a bottleneck of `size` behind a module."""

    def factory(module: Any, rngs: nnx.Rngs) -> nnx.Module:
        width = outputs_of(module)
        init = nnx.initializers.lecun_normal()
        return recast(
            module,
            mixed(Adapter, type(module)),
            adapter_down=init(rngs.params(), (width, size), jnp.float32),
            adapter_down_bias=jnp.zeros(size),
            adapter_up=jnp.zeros((size, width)),
            adapter_up_bias=jnp.zeros(width),
        )

    return factory


def scaled(side: str) -> Factory:
    """The factory that multiplies a layer's outputs or inputs."""

    def factory(module: Any, rngs: nnx.Rngs) -> nnx.Module:
        if type(module) not in (nnx.Linear, nnx.Conv):
            raise ValueError('it takes linear layers and convolutions by plain kernels only')
        if side == 'output':
            ones = jnp.ones(module.out_features)
            return recast(module, mixed(Ia3Output, type(module)), ia3_output=ones)
        if getattr(module, 'feature_group_count', 1) != 1:
            raise ValueError("with side='input' it takes no grouped convolution")
        ones = jnp.ones(module.in_features)
        return recast(module, mixed(Ia3Input, type(module)), ia3_input=ones)

    return factory


def outputs_of(module: Any) -> int:
    """The width of what a module gives.

    Raises:
      ValueError: that is not known.
    """
    layer = module
    if isinstance(module, Attention | Mlp):
        layer = module.out if isinstance(module, Attention) else module.down
    if not isinstance(layer, nnx.Linear | nnx.Conv):
        raise ValueError('it takes attention, two-layer networks, linear layers and convolutions')
    return layer.out_features
