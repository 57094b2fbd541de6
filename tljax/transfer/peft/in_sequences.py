"""Prefixes and prompts: learnt vectors that tokens can look at."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.transformer import Attention, Stack
from tljax.transfer.injection import Factory, mixed, recast

DEVIATION = 0.02  # of fresh vectors, as of the tables of embeddings beside them


class Prefix:
    """Attention to learnt keys and values too, in front of those of the tokens.

    Prefix-tuning (Li and Liang 2021, section 4.2); the vectors themselves are learnt, without the
    network that makes them in training there (section 4.3).
    """

    prefix_key: Any
    prefix_value: Any

    def seen(
        self, k_BxLxNxH: jax.Array, v_BxLxNxH: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        count = self.prefix_key.shape[0]
        keys = in_front(self.prefix_key[...], k_BxLxNxH)
        values = in_front(self.prefix_value[...], v_BxLxNxH)
        if mask is not None:
            rows = (*mask.shape[:-1], k_BxLxNxH.shape[1])
            seen = jnp.ones((*mask.shape[:-1], count), bool)
            mask = jnp.concatenate([seen, jnp.broadcast_to(mask, rows)], -1)
        return keys, values, mask


class Prompt:
    """Learnt vectors in front of the tokens on their way through the blocks, and cut off behind.

    Prompt tuning (Lester et al. 2021, section 2); for pictures VPT-shallow (Jia et al. 2022,
    section 3.2). They have no positions, and move none of the tokens'. Tokens look at all of them;
    they look at the tokens too, unless the model is causal.
    """

    prompt: Any

    def through(
        self,
        x_BxLxD: jax.Array,
        mask: jax.Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        base: Any = super()
        count = self.prompt.shape[0]
        mask = behind(mask, count, x_BxLxD.shape[1])
        return base.through(in_front(self.prompt[...], x_BxLxD), mask, rngs)[:, count:]


def behind(mask: jax.Array | None, count: int, length: int) -> jax.Array | None:
    """The mask of tokens with `count` vectors in front of them.

    Args:
      mask: broadcasts to (B, heads, length, length); with a row for each query it is causal.

    >>> causal = jnp.tril(jnp.ones((1, 1, 2, 2), bool))
    >>> behind(causal, 2, 2)[0, 0].astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    """
    if mask is None:
        return None
    *outer, queries, _ = mask.shape
    mask = jnp.broadcast_to(mask, (*outer, queries, length))
    mask = jnp.concatenate([jnp.ones((*outer, queries, count), bool), mask], -1)
    if queries == 1:
        return mask
    first = jnp.tril(jnp.ones((count, count + length), bool))
    return jnp.concatenate([jnp.broadcast_to(first, (*outer, *first.shape)), mask], -2)


def in_front(vectors: jax.Array, sequence: jax.Array) -> jax.Array:
    """(P, ...) in front of each of (B, L, ...), in the dtype of these."""
    shape = (len(sequence), len(vectors), *sequence.shape[2:])
    fresh = vectors.astype(sequence.dtype).reshape(1, *shape[1:])
    return jnp.concatenate([jnp.broadcast_to(fresh, shape), sequence], 1)


def prefixed(length: int) -> Factory:
    """The factory that puts learnt keys and values into attention."""

    def factory(module: Any, rngs: nnx.Rngs) -> nnx.Module:
        if not isinstance(module, Attention):
            raise ValueError('it takes attention only')
        shape = (length, module.key.out_features)
        names = ('prefix_key', 'prefix_value')
        leaves = {name: DEVIATION * jax.random.normal(rngs.params(), shape) for name in names}
        return recast(module, mixed(Prefix, type(module)), **leaves)

    return factory


def prompted(length: int) -> Factory:
    """The factory that puts learnt vectors in front of the tokens of a transformer's backbone."""

    def factory(module: Any, rngs: nnx.Rngs) -> nnx.Module:
        if not isinstance(module, Stack):
            raise ValueError("it takes a transformer's backbone only")
        block: Any = module
        shape = (length, block.block0.attention.query.in_features)
        leaf = DEVIATION * jax.random.normal(rngs.params(), shape)
        return recast(module, mixed(Prompt, type(module)), prompt=leaf)

    return factory
