"""wav2vec 2.0 (Baevski et al. 2020): an encoder of sound, and a linear head.

Its parts are in the order of figure 1: convolutions turn the wave into frames, a projection brings
them to the transformer's width, a wide convolution tells where they are, blocks look at them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models import audio, text
from tljax.models.layers import dtype_of, uniform_init
from tljax.models.outline import transformer_stages
from tljax.models.transformer import Block, Stack, layer_norm

Batch = Mapping[str, jax.Array]
CONV_NORMS = ('group', 'layer')
NORMS = ('post', 'pre')
POOLS = ('none', 'mean')


class Projection(nnx.Module):
    """Layer norm and a linear layer, from the frames' width to the transformer's."""

    def __init__(self, inputs, width, epsilon, dtype, rngs):
        init = uniform_init(inputs)
        self.norm = layer_norm(inputs, epsilon, dtype, rngs)
        self.linear = nnx.Linear(
            inputs, width, dtype=dtype, kernel_init=init, bias_init=init, rngs=rngs
        )

    def __call__(self, x_BxFxC: jax.Array) -> jax.Array:
        return self.linear(self.norm(x_BxFxC))


class Backbone(Stack):
    """From a wave to one vector a frame."""

    def __init__(self, width, layers, norm, extractor, position, dropout, block, rngs):
        dtype, activation, epsilon = block['dtype'], block['activation'], block['epsilon']
        self.extractor = audio.Extractor(**extractor, activation=activation, dtype=dtype, rngs=rngs)
        self.projection = Projection(extractor['widths'][-1], width, epsilon, dtype, rngs)
        self.position = audio.Position(
            width, **position, activation=activation, dtype=dtype, rngs=rngs
        )
        self.norm = layer_norm(width, epsilon, dtype, rngs)
        self.dropout = nnx.Dropout(dropout)
        self.layers, self.is_pre = layers, norm == 'pre'
        self.kernels, self.strides = tuple(extractor['kernels']), tuple(extractor['strides'])
        for n in range(layers):
            setattr(self, f'block{n}', Block(width, norm=norm, dropout=dropout, rngs=rngs, **block))

    def frame_mask(self, batch: Batch) -> jax.Array | None:
        """(B, F), True where a frame saw no padding at all; None without a `mask`."""
        if batch.get('mask') is None:
            return None
        samples_B = (batch['mask'] > 0).sum(1)
        lengths_B = audio.frames(samples_B, self.kernels, self.strides)
        count = audio.frames(batch['mask'].shape[1], self.kernels, self.strides)
        return jnp.arange(count)[None] < lengths_B[:, None]

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a frame: (B, F, D)."""
        x_BxFxD = self.projection(self.extractor(batch['audio']))
        mask_BxF = self.frame_mask(batch)
        if mask_BxF is not None:
            x_BxFxD = jnp.where(mask_BxF[:, :, None], x_BxFxD, jnp.zeros((), x_BxFxD.dtype))
        x_BxFxD = x_BxFxD + self.position(x_BxFxD)
        x_BxFxD = self.dropout(x_BxFxD if self.is_pre else self.norm(x_BxFxD), rngs=rngs)
        mask = None if mask_BxF is None else mask_BxF[:, None, None, :]
        x_BxFxD = self.through(x_BxFxD, mask, rngs)
        return self.norm(x_BxFxD) if self.is_pre else x_BxFxD


class Wav2Vec2(nnx.Module):
    """wav2vec 2.0's encoder (Baevski et al. 2020, section 2) and a linear head (section 3).

    A batch has `audio` (B, T) float32, each recording of mean zero and variance one, and if wanted
    `mask` (B, T), 1 at its samples and 0 at the padding behind them. The 'group' kind was trained
    without masks, on zeros behind the recording: its first norm is over all of T, so that padding
    changes its numbers either way.

    Args:
      example: needs `audio`, of shape (samples,).
      outputs: size of the head.
      width: of a frame's vector in the transformer. The base model is the default; large is
        width 1024, layers 24, heads 16, hidden 4096, and in the published files of its newer kind
        (60,000 hours of English; 53 languages) conv_norm 'layer', conv_bias True, norm 'pre'.
      layers: number of blocks.
      heads: of attention; divides the width.
      hidden: size of the hidden layer in each block.
      conv_widths: channels of each convolution that makes frames of the wave.
      conv_kernels: the number of samples, then of frames, that each sees.
      conv_strides: how far apart those are.
      conv_bias: whether these convolutions have biases.
      conv_norm: 'group' normalises each channel over time behind the first of them only, 'layer'
        each frame behind all of them.
      norm: 'post' normalises before the blocks and each sum in them, 'pre' what enters each part
        of a block, and the last one's sum.
      position_kernel: number of frames that the convolution telling positions sees.
      position_groups: of its channels; divides the width.
      epsilon: of the layer norms, but those of `conv_norm`, where it is 1e-5.
      activation: 'gelu', 'gelu_tanh' or 'relu', everywhere.
      pool: 'none' gives logits for each frame, as CTC wants them; 'mean' for the mean over the
        frames that are not padding.
      dropout: share of the blocks' input, of each block's parts and of the features dropped in
        training.
      attention_dropout: share of attention weights dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in.

    Raises:
      ValueError: an argument makes no sense, or an example has no `audio`, or less than a frame.

    >>> example = {'audio': jax.ShapeDtypeStruct((100,), 'float32')}
    >>> sizes = dict(width=8, layers=1, heads=2, hidden=16, position_kernel=4, position_groups=2)
    >>> convs = dict(conv_widths=(4, 4), conv_kernels=(10, 3), conv_strides=(5, 2))
    >>> model = Wav2Vec2(example, 3, **sizes, **convs, rngs=nnx.Rngs(params=0))
    >>> model.eval()
    >>> model({'audio': jnp.zeros((2, 100))}).shape, model.frames(100)
    ((2, 9, 3), 9)
    """

    reads = 'audio'

    stem_stages = 2

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        conv_widths: Sequence[int] = (512,) * 7,
        conv_kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
        conv_strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
        conv_bias: bool = False,
        conv_norm: str = 'group',
        norm: str = 'post',
        position_kernel: int = 128,
        position_groups: int = 16,
        epsilon: float = 1e-5,
        activation: str = 'gelu',
        pool: str = 'none',
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        check_names(conv_norm=(conv_norm, CONV_NORMS), norm=(norm, NORMS), pool=(pool, POOLS))
        text.check_at_least_one(
            width=width,
            heads=heads,
            hidden=hidden,
            position_kernel=position_kernel,
            position_groups=position_groups,
        )
        if width % position_groups:
            raise ValueError(f'position_groups is {position_groups}; it must divide {width}')
        audio.check_convs(conv_widths, conv_kernels, conv_strides)
        audio.check_audio(example, conv_kernels, conv_strides)
        extractor = dict(
            widths=tuple(conv_widths),
            kernels=tuple(conv_kernels),
            strides=tuple(conv_strides),
            norm=conv_norm,
            bias=conv_bias,
        )
        init = nnx.initializers.normal(0.02)
        block = dict(
            heads=heads,
            hidden=hidden,
            activation=activation,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
            dtype=dtype_of(dtype),
            init=init,
        )
        position = dict(kernel=position_kernel, groups=position_groups)
        self.backbone = Backbone(width, layers, norm, extractor, position, dropout, block, rngs)
        self.dropout = nnx.Dropout(dropout)
        self.pool = pool
        self.head = nnx.Linear(width, outputs, kernel_init=init, dtype=jnp.float32, rngs=rngs)

    def frames(self, samples: Any) -> Any:
        """How many frames there are for so many samples; an int or an array of them."""
        return audio.frames(samples, self.backbone.kernels, self.backbone.strides)

    def stages(self) -> tuple[str, ...]:
        """What makes frames, what places them, each block and the head, bottom to top."""
        norm, embeddings = ('norm',), ('projection', 'position')
        below, above = (embeddings, norm) if self.backbone.is_pre else (embeddings + norm, ())
        return ('backbone/extractor/.*', *transformer_stages(below, self.backbone.layers, above))

    def features(self, batch: Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """What the head sees, float32: (batch, frames, width), or (batch, width) if pooled."""
        x_BxFxD = self.backbone(batch, rngs).astype(jnp.float32)
        if self.pool == 'none':
            return x_BxFxD
        return text.mean_token(x_BxFxD, self.backbone.frame_mask(batch))

    def real(self, batch: Batch) -> jax.Array | None:
        """Which frames saw no padding, (B, F); see `tljax.models.real_positions`."""
        mask_BxF = self.backbone.frame_mask(batch)
        return None if mask_BxF is None else mask_BxF.astype(jnp.float32)

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, frames, outputs), or (batch, outputs) if pooled."""
        return self.head(self.dropout(self.features(batch, rngs), rngs=rngs))


def check_names(**choices: tuple[str, Sequence[str]]) -> None:
    """Raises a ValueError if an argument is none of what it takes."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f'{name} is {value!r}; it takes one of {tuple(known)}')
