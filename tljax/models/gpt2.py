"""GPT-2 (Radford et al. 2019): a decoder that sees only what came before."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models import text
from tljax.models.layers import dtype_of
from tljax.models.outline import transformer_stages
from tljax.models.transformer import Block, Stack, layer_norm

POOLS = ('none', 'last')


class TiedHead(nnx.Module):
    """Logits by the token embedding (Press and Wolf 2017); it holds no parameters of its own."""

    def __call__(self, x_BxLxD: jax.Array, embedding_VxD: jax.Array) -> jax.Array:
        return jnp.einsum(
            'bld,vd->blv',
            x_BxLxD,
            embedding_VxD.astype(x_BxLxD.dtype),
            preferred_element_type=jnp.float32,
        )


class Backbone(Stack):
    """Embeddings, blocks that normalise what enters each part, and a last layer norm."""

    def __init__(self, width, layers, hidden, vocabulary, positions, dropout, block, rngs):
        dtype = block['dtype']
        normal = nnx.initializers.normal
        options: Any = dict(dtype=dtype, rngs=rngs)
        self.token = nnx.Embed(vocabulary, width, embedding_init=normal(0.02), **options)
        self.position = nnx.Embed(positions, width, embedding_init=normal(0.01), **options)
        self.dropout = nnx.Dropout(dropout)
        self.layers = layers
        for n in range(layers):
            made = Block(width, hidden=hidden, norm='pre', dropout=dropout, rngs=rngs, **block)
            for residual in (made.attention.out, made.mlp.down):
                residual.kernel[...] = residual.kernel[...] / (2 * layers) ** 0.5
            setattr(self, f'block{n}', made)
        self.norm = layer_norm(width, block['epsilon'], dtype, rngs)

    def __call__(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a token: (B, L, D)."""
        tokens_BxL = batch['tokens']
        length = tokens_BxL.shape[1]
        text.check_length(length, self.position.num_embeddings)
        places = batch.get('positions')
        places = jnp.arange(length)[None] if places is None else places
        x_BxLxD = self.token(tokens_BxL) + self.position(places)
        x_BxLxD = self.dropout(x_BxLxD, rngs=rngs)
        mask = jnp.tril(jnp.ones((1, 1, length, length), bool))
        padding = text.padding_mask(batch)
        if padding is not None:
            mask = mask & padding
        if batch.get('segments') is not None:
            mask = mask & text.within_segments(batch['segments'])
        return self.norm(self.through(x_BxLxD, mask, rngs))


class Gpt2(nnx.Module):
    """A causal transformer (Radford et al. 2019, section 2.3) and its head.

    A batch has `tokens` (B, L) int32, and if wanted `mask` (B, L), 0 at padding. Positions are
    counted from the first column, so padding belongs on the right; or they are `positions` (B, L).
    Of several documents in a row `segments` (B, L) are the numbers; none looks into another.
    Weights start as in the paper and the original implementation: normals of deviation 0.02,
    of 0.01 for positions, those that add to the residual stream divided by the square root of
    the number of such additions, 2 * layers; biases at zero.

    Args:
      example: needs `tokens`, of shape (length,).
      outputs: size of the head; the vocabulary where it is tied.
      width: of a token's vector. GPT-2 small is the default; medium, large and XL are width 1024,
        1280, 1600, layers 24, 36, 48, heads 16, 20, 25.
      layers: number of blocks.
      heads: of attention; divides the width.
      hidden: size of the hidden layer in each block; 0 is 4 * width.
      vocabulary: number of tokens.
      positions: the greatest length.
      activation: 'gelu_tanh', 'gelu' or 'relu'.
      epsilon: of the layer norms.
      tied: whether the token embedding is the head's kernel too; only with pool 'none'.
      head_bias: whether a head that is not tied has a bias.
      pool: 'none' gives logits at every position, those of the next token; 'last' one vector of
        logits a text, from its last token that is not padding.
      dropout: share of embeddings and of each block's parts dropped in training.
      attention_dropout: share of attention weights dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in.

    Raises:
      ValueError: the text is longer than `positions`, `outputs` is not the vocabulary of a tied
        head, an argument makes no sense, or an example has no `tokens`.

    >>> example = {'tokens': jax.ShapeDtypeStruct((5,), 'int32')}
    >>> sizes = dict(width=8, layers=1, heads=2, vocabulary=20, positions=6)
    >>> model = Gpt2(example, 20, **sizes, rngs=nnx.Rngs(params=0))
    >>> model.eval()
    >>> model({'tokens': jnp.zeros((2, 5), 'int32')}).shape
    (2, 5, 20)
    """

    stem_stages = 1
    reads = 'tokens'

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 0,
        vocabulary: int = 50257,
        positions: int = 1024,
        activation: str = 'gelu_tanh',
        epsilon: float = 1e-5,
        tied: bool = True,
        head_bias: bool = True,
        pool: str = 'none',
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if pool not in POOLS:
            raise ValueError(f'pool is {pool!r}; it takes one of {POOLS}')
        self.tied = tied and pool == 'none'
        if self.tied and outputs != vocabulary:
            raise ValueError(
                f'a tied head gives a logit for each of {vocabulary} tokens, and the task has '
                f'{outputs} outputs; set tied=False, or pool="last" to classify texts'
            )
        text.check_at_least_one(
            width=width, heads=heads, vocabulary=vocabulary, positions=positions
        )
        text.check_tokens(example, positions)
        self.pool = pool
        init = nnx.initializers.normal(0.02)
        block = dict(
            heads=heads,
            activation=activation,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
            dtype=dtype_of(dtype),
            init=init,
        )
        hidden = hidden or 4 * width
        self.backbone = Backbone(width, layers, hidden, vocabulary, positions, dropout, block, rngs)
        options: Any = dict(use_bias=head_bias, kernel_init=init, dtype=jnp.float32, rngs=rngs)
        self.head: Any = TiedHead() if self.tied else nnx.Linear(width, outputs, **options)

    def stages(self) -> tuple[str, ...]:
        """Embeddings, each block and the head, bottom to top; see `Model.outline`.

        A tied head has no parameters, and so is no stage.
        """
        embeddings, layers = ('token', 'position'), self.backbone.layers
        return transformer_stages(embeddings, layers, ('norm',), head=not self.tied)

    def features(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """What the head sees: (batch, width), or with pool 'none' (batch, length, width)."""
        x_BxLxD = self.backbone(batch, rngs)
        if self.pool == 'none':
            return x_BxLxD
        return text.last_token(x_BxLxD, batch.get('mask')).astype(jnp.float32)

    def real(self, batch: text.Batch) -> jax.Array | None:
        """Which positions hold tokens, (B, L); see `tljax.models.real_positions`."""
        return text.real(batch)

    def __call__(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs), or with pool 'none' (batch, length, outputs)."""
        x = self.features(batch, rngs)
        if self.tied:
            return self.head(x, self.backbone.token.embedding[...])
        return self.head(x)
