"""What transformers of every kind are built from: attention, the two-layer network, the block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# 'gelu' is x Phi(x), and 'gelu_tanh' its approximation (Hendrycks and Gimpel 2016, section 2).
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu': lambda x: nnx.gelu(x, approximate=False),
    'gelu_tanh': lambda x: nnx.gelu(x, approximate=True),
    'relu': nnx.relu,
}


def activation_of(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name.

    Raises:
      ValueError: there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f'activation is {name!r}; it takes one of {tuple(ACTIVATIONS)}')
    return ACTIVATIONS[name]


def layer_norm(width: int, epsilon: float, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation whose variance is the mean squared distance from the mean.

    E[x^2] - E[x]^2, flax's default, cancels where the mean is large beside the spread, and an
    epsilon of 1e-12, BERT's, hides none of it.
    """
    return nnx.LayerNorm(width, epsilon=epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Args:
      width: of the sequence's vectors.
      heads: divides the width.
      dropout: share of the attention weights dropped in training.
      init: of the kernels.

    Raises:
      ValueError: the heads don't divide the width.
    """

    def __init__(self, width, heads, *, dropout=0.0, dtype=jnp.float32, init, rngs):
        if width % heads:
            raise ValueError(f'{heads} heads do not divide a width of {width}')
        self.heads = heads
        options: Any = dict(dtype=dtype, kernel_init=init, rngs=rngs)
        self.query = nnx.Linear(width, width, **options)
        self.key = nnx.Linear(width, width, **options)
        self.value = nnx.Linear(width, width, **options)
        self.out = nnx.Linear(width, width, **options)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: jax.Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Attends.

        Args:
          mask: broadcasts to (B, heads, L, L), of that rank; False where a query must not look.
        """
        batch, length, width = x_BxLxD.shape
        split = (batch, length, self.heads, width // self.heads)
        q_BxLxNxH = self.query(x_BxLxD).reshape(split)
        k_BxLxNxH = self.key(x_BxLxD).reshape(split)
        v_BxLxNxH = self.value(x_BxLxD).reshape(split)
        k_BxLxNxH, v_BxLxNxH, mask = self.seen(k_BxLxNxH, v_BxLxNxH, mask)
        scores = jnp.einsum('bqnh,bknh->bnqk', q_BxLxNxH, k_BxLxNxH).astype(jnp.float32)
        scores = scores / split[-1] ** 0.5
        if mask is not None:
            # Finite, so that a query with nothing to look at gives numbers, not nan.
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = self.dropout(jax.nn.softmax(scores), rngs=rngs).astype(v_BxLxNxH.dtype)
        return self.out(jnp.einsum('bnqk,bknh->bqnh', weights, v_BxLxNxH).reshape(x_BxLxD.shape))

    def seen(
        self, k_BxLxNxH: jax.Array, v_BxLxNxH: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """The keys and values that there are to look at, and the mask; for prefixes to add to."""
        return k_BxLxNxH, v_BxLxNxH, mask


class Mlp(nnx.Module):
    """Two linear layers with an activation between them, at each position (section 3.3)."""

    def __init__(self, width, hidden, activation, *, dtype=jnp.float32, init, rngs):
        options: Any = dict(dtype=dtype, kernel_init=init, rngs=rngs)
        self.up = nnx.Linear(width, hidden, **options)
        self.down = nnx.Linear(hidden, width, **options)
        self.activation = activation_of(activation)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(self.activation(self.up(x_BxLxD)))


class Block(nnx.Module):
    """Attention, then the two-layer network, each with a residual connection and layer norm.

    Args:
      norm: 'pre' normalises what enters each part (ViT, GPT-2), 'post' the sum (BERT).
      dropout: share of each part's output dropped in training.
      attention_dropout: share of the attention weights.
      epsilon: of the layer norms.

    Raises:
      ValueError: `norm` or `activation` is unknown, or the heads don't divide the width.
    """

    def __init__(
        self,
        width,
        heads,
        hidden,
        *,
        norm='pre',
        activation='gelu',
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=1e-6,
        dtype=jnp.float32,
        init=None,
        rngs,
    ):
        if norm not in ('pre', 'post'):
            raise ValueError(f"norm is {norm!r}; it takes 'pre' or 'post'")
        self.pre = norm == 'pre'
        init = init or nnx.initializers.xavier_uniform()
        options: Any = dict(dtype=dtype, init=init, rngs=rngs)
        self.norm1 = layer_norm(width, epsilon, dtype, rngs)
        self.attention = Attention(width, heads, dropout=attention_dropout, **options)
        self.norm2 = layer_norm(width, epsilon, dtype, rngs)
        self.mlp = Mlp(width, hidden, activation, **options)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: jax.Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        x = x_BxLxD
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x), mask, rngs), rngs=rngs)
            return x + self.dropout(self.mlp(self.norm2(x)), rngs=rngs)
        x = self.norm1(x + self.dropout(self.attention(x, mask, rngs), rngs=rngs))
        return self.norm2(x + self.dropout(self.mlp(x), rngs=rngs))


class Stack(nnx.Module):
    """What backbones of blocks `block0` ... share: the way through the blocks.

    Attributes:
      layers: number of blocks.
    """

    layers: int

    def through(
        self,
        x_BxLxD: jax.Array,
        mask: jax.Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """All blocks, one after another; for prompts to be put in front.

        Args:
          mask: as for `Attention`; one with a row for each query is causal.
        """
        for n in range(self.layers):
            x_BxLxD = getattr(self, f'block{n}')(x_BxLxD, mask, rngs)
        return x_BxLxD
