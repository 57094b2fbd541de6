"""BERT (Devlin et al. 2019): an encoder of text, of any size, MiniLM's among them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models import text
from tljax.models.layers import dtype_of
from tljax.models.outline import transformer_stages
from tljax.models.transformer import Block, Stack, layer_norm

POOLS = ('cls', 'first', 'mean')


class Backbone(Stack):
    """Embeddings, then blocks that normalise after each residual sum."""

    def __init__(
        self, width, layers, hidden, vocabulary, positions, types, pool, dropout, block, rngs
    ):
        init, dtype = block['init'], block['dtype']
        options: Any = dict(embedding_init=init, dtype=dtype, rngs=rngs)
        self.token = nnx.Embed(vocabulary, width, **options)
        self.position = nnx.Embed(positions, width, **options)
        if types:
            self.type = nnx.Embed(types, width, **options)
        self.norm = layer_norm(width, block['epsilon'], dtype, rngs)
        self.dropout = nnx.Dropout(dropout)
        self.layers, self.pool, self.types = layers, pool, types
        for n in range(layers):
            made = Block(width, hidden=hidden, norm='post', dropout=dropout, rngs=rngs, **block)
            setattr(self, f'block{n}', made)
        if pool == 'cls':
            self.pooler = nnx.Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a token: (B, L, D)."""
        tokens_BxL = batch['tokens']
        length = tokens_BxL.shape[1]
        text.check_length(length, self.position.num_embeddings)
        x_BxLxD = self.token(tokens_BxL) + self.position(jnp.arange(length))[None]
        if self.types:
            types_BxL = batch.get('types')
            first_BxL = jnp.zeros_like(tokens_BxL)
            x_BxLxD = x_BxLxD + self.type(first_BxL if types_BxL is None else types_BxL)
        x_BxLxD = self.dropout(self.norm(x_BxLxD), rngs=rngs)
        return self.through(x_BxLxD, text.padding_mask(batch), rngs)

    def pooled(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a text, float32: (B, D)."""
        x_BxLxD = self(batch, rngs)
        if self.pool == 'mean':
            return text.mean_token(x_BxLxD, batch.get('mask'))
        first_BxD = x_BxLxD[:, 0]
        if self.pool == 'cls':
            first_BxD = jnp.tanh(self.pooler(first_BxD))
        return first_BxD.astype(jnp.float32)


class Bert(nnx.Module):
    """A bidirectional transformer (Devlin et al. 2019, section 3) and a linear head.

    A batch has `tokens` (B, L) int32, and if wanted `mask` (B, L), 0 at padding, and `types`
    (B, L), which of two texts a token is of; without them all is text, of the first.
    Weights start as in the original implementation: a normal of deviation 0.02, cut at twice
    that; biases at zero.

    Args:
      example: needs `tokens`, of shape (length,).
      outputs: size of the head.
      width: of a token's vector. BERT base is the default, large is width 1024, layers 24,
        heads 16, hidden 4096; MiniLM-L6 is width 384, layers 6, heads 12, hidden 1536.
      layers: number of blocks.
      heads: of attention; divides the width.
      hidden: size of the hidden layer in each block.
      vocabulary: number of tokens.
      positions: the greatest length.
      types: number of kinds of tokens; 0 tells none apart, as DistilBERT.
      activation: 'gelu', 'gelu_tanh' or 'relu'.
      epsilon: of the layer norms.
      pool: what stands for the text: 'cls' is tanh of a linear layer on the first token, as BERT
        does for classification; 'first' is the first token; 'mean' is the mean over the tokens
        that are not padding, as sentence embeddings do.
      dropout: share of embeddings, of each block's parts and of the features dropped in training.
      attention_dropout: share of attention weights dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in.

    Raises:
      ValueError: the text is longer than `positions`, an argument makes no sense, or an example
        has no `tokens`.

    >>> example = {'tokens': jax.ShapeDtypeStruct((5,), 'int32')}
    >>> sizes = dict(width=8, layers=1, heads=2, hidden=16, vocabulary=20, positions=6)
    >>> model = Bert(example, 3, **sizes, rngs=nnx.Rngs(params=0))
    >>> model.eval()
    >>> model({'tokens': jnp.zeros((2, 5), 'int32')}).shape
    (2, 3)
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
        hidden: int = 3072,
        vocabulary: int = 30522,
        positions: int = 512,
        types: int = 2,
        activation: str = 'gelu',
        epsilon: float = 1e-12,
        pool: str = 'cls',
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if pool not in POOLS:
            raise ValueError(f'pool is {pool!r}; it takes one of {POOLS}')
        text.check_at_least_one(
            width=width,
            heads=heads,
            hidden=hidden,
            vocabulary=vocabulary,
            positions=positions,
        )
        if types < 0:
            raise ValueError(f'types is {types}; it must be at least 0')
        text.check_tokens(example, positions)
        init = nnx.initializers.truncated_normal(0.02)
        block = dict(
            heads=heads,
            activation=activation,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
            dtype=dtype_of(dtype),
            init=init,
        )
        self.backbone = Backbone(
            width, layers, hidden, vocabulary, positions, types, pool, dropout, block, rngs
        )
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(width, outputs, kernel_init=init, dtype=jnp.float32, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """Embeddings, each block and the head, bottom to top; see `Model.outline`."""
        embeddings = ('token', 'position', 'type', 'norm')
        return transformer_stages(embeddings, self.backbone.layers, ('pooler',))

    def features(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """What stands for each text, float32: (batch, width)."""
        return self.backbone.pooled(batch, rngs)

    def real(self, batch: text.Batch) -> jax.Array | None:
        """Which positions hold tokens, (B, L); see `tljax.models.real_positions`."""
        return text.real(batch)

    def __call__(self, batch: text.Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.dropout(self.features(batch, rngs), rngs=rngs))
