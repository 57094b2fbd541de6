"""LoRA and DoRA: a change of low rank beside a kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tljax.models.bit import StandardConv
from tljax.transfer.injection import altered, mixed, recast

Kernels = dict[str, jax.Array]


class Lora:
    """A linear layer or convolution beside which a low-rank one is added to the outputs.

    y = W x + (alpha / r) B A x (Hu et al. 2022, section 4.1). Of a convolution, A is one to `rank`
    channels with the same window, stride and padding, and B a 1x1 convolution: again a change of
    low rank of the kernel, seen as a matrix (window and inputs) x outputs.
    """

    kernel: Any
    bias: Any
    lora_a: Any
    lora_b: Any
    lora_scale: float

    def __call__(self, x: jax.Array) -> jax.Array:
        base: Any = super()
        return base.__call__(x) + self.change(x)

    def change(self, x: jax.Array) -> jax.Array:
        """(alpha / r) B A x."""
        low = without_bias(self, self.lora_a[...])(x)
        return (low @ self.lora_b[...].astype(low.dtype)) * self.lora_scale

    def merged(self) -> Kernels:
        """W + (alpha / r) A B, in the kernel's own layout, inputs before outputs."""
        change = self.lora_scale * (self.lora_a[...] @ self.lora_b[...])
        return {'kernel': self.kernel[...] + change}


class Dora(Lora):
    """LoRA on the direction of each output's weights, with a magnitude of its own.

    W' = m (W + B A) / ||W + B A|| (Liu et al. 2024, "DoRA", equation 5), the norm over the inputs
    of each output, as in the authors' code. m is the source's norm times a factor that starts at
    one, so that it fits whatever weights are loaded. The norm below is not differentiated
    (section 4.3).
    """

    dora_magnitude: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        plain = without_bias(self, self.kernel[...])(x)
        y = (plain + self.change(x)) * last_axis(self.factor().astype(plain.dtype), plain.ndim)
        if self.bias is None:
            return y
        return y + last_axis(self.bias[...].astype(y.dtype), y.ndim)

    def factor(self) -> jax.Array:
        """What each output is multiplied by: (outputs,)."""
        before = column_norms(self.kernel[...])
        after = column_norms(Lora.merged(self)['kernel'])
        ratio = jnp.where(after > 0, before / jnp.where(after > 0, after, 1.0), 1.0)
        return self.dora_magnitude[...] * lax.stop_gradient(ratio)

    def merged(self) -> Kernels:
        kernel = Lora.merged(self)['kernel']
        return {'kernel': kernel * last_axis(self.factor(), kernel.ndim)}


class LoraOfAll(Lora):
    """LoRA for a layer that does something to its kernel first: y = f(W + (alpha / r) B A) x."""

    def __call__(self, x: jax.Array) -> jax.Array:
        base: Any = altered(
            self, type(self).__bases__[1], kernel=nnx.Param(self.merged()['kernel'])
        )
        return base(x)


def inserted(
    mixin: type[Lora], rank: int, alpha: float, **leaves: Callable[[int], jax.Array]
) -> Callable[[Any, nnx.Rngs], nnx.Module]:
    """The factory that puts `mixin` over a linear layer or convolution.

    Args:
      leaves: what else it holds, from the number of outputs.
    """

    def factory(module: Any, rngs: nnx.Rngs) -> nnx.Module:
        if not fits(module, mixin):
            raise ValueError('it takes linear layers, and convolutions that are not grouped')
        over = LoraOfAll if isinstance(module, StandardConv) else mixin
        kernel = module.kernel[...]
        *window, outputs = kernel.shape
        # As PyTorch's layers begin, and so the authors' A.
        init = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
        a = init(rngs.params(), (*window, rank), kernel.dtype)
        b = jnp.zeros((rank, outputs), kernel.dtype)
        made = {name: make(outputs) for name, make in leaves.items()}
        new = recast(module, mixed(over, type(module)), lora_a=a, lora_b=b, **made)
        new.lora_scale = float(alpha) / rank
        return new

    return factory


def fits(module: Any, mixin: type = Lora) -> bool:
    """Whether a change of low rank can stand beside a module."""
    if isinstance(module, StandardConv):
        return mixin is Lora
    if type(module) is nnx.Conv:
        return module.feature_group_count == 1 and module.mask is None
    return type(module) is nnx.Linear


def without_bias(module: Any, kernel: jax.Array) -> Any:
    """The linear layer or convolution that a module is, by another kernel and without bias."""
    base = nnx.Conv if isinstance(module, nnx.Conv) else nnx.Linear
    return altered(module, base, kernel=nnx.Param(kernel), bias=None, use_bias=False)


def last_axis(vector: jax.Array, rank: int) -> jax.Array:
    """A vector that meets the last axis of arrays of a rank."""
    return vector.reshape((1,) * (rank - 1) + (-1,))


def column_norms(kernel: jax.Array) -> jax.Array:
    """The norm of what each output weighs its inputs with: (outputs,)."""
    return jnp.sqrt(jnp.square(kernel.reshape(-1, kernel.shape[-1])).sum(0))
