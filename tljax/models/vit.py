"""Vision transformers (Dosovitskiy et al. 2021, "An image is worth 16x16 words").

Paths are `backbone/patch`, `class_token`, `position`, `block0` ..., `norm`, and `head`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tljax.models.layers import dtype_of, image_shape
from tljax.models.outline import transformer_stages
from tljax.models.transformer import Block, Stack, layer_norm

# Table 1, and table 2 of Zhai et al. 2022 for Ti: `arguments('vit', **SIZES['S'], patch=32)`.
SIZES = {
    'Ti': dict(width=192, layers=12, heads=3, hidden=768),
    'S': dict(width=384, layers=12, heads=6, hidden=1536),
    'B': dict(width=768, layers=12, heads=12, hidden=3072),
    'L': dict(width=1024, layers=24, heads=16, hidden=4096),
    'H': dict(width=1280, layers=32, heads=16, hidden=5120),
}
POOLS = ('cls', 'mean', 'mean_norm')
POSITIONS = ('learnt', 'learnt_patches', 'sincos2d')


def patches_conv(
    x_BxHxWxI: jax.Array,
    kernel_hxwxIxO: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **rest: Any,
) -> jax.Array:
    """A convolution whose windows lie side by side, on a CPU as one matrix product over patches.

    The drop-in for `nnx.Conv(conv_general_dilated=...)` where stride and kernel are one size and
    divide the picture.

    >>> x, kernel = jnp.ones((1, 4, 6, 3)), jnp.ones((2, 2, 3, 5))
    >>> patches_conv(x, kernel, (2, 2), 'VALID')[0, :, :, 0].tolist()
    [[12.0, 12.0, 12.0], [12.0, 12.0, 12.0]]
    """
    if jax.default_backend() != 'cpu':
        return jax.lax.conv_general_dilated(
            x_BxHxWxI, kernel_hxwxIxO, window_strides, padding, **rest
        )
    batch, rows, columns, channels = x_BxHxWxI.shape
    height, width, _, outputs = kernel_hxwxIxO.shape
    down, across = rows // height, columns // width
    cut = x_BxHxWxI.reshape(batch, down, height, across, width, channels).swapaxes(2, 3)
    flat = cut.reshape(batch, down, across, height * width * channels)
    return flat @ kernel_hxwxIxO.reshape(-1, outputs)


def sincos2d(rows: int, columns: int, width: int) -> np.ndarray:
    """Positions that are not learnt: (1, rows * columns, width) float32.

    A quarter of the width each for the sines and the cosines of the column, and those of the row,
    at frequencies from 1 to 1 / 10000 (Chen et al. 2021, "An empirical study of training
    self-supervised vision transformers", appendix; Beyer et al. 2022, "Better plain ViT baselines
    for ImageNet-1k").

    Raises:
      ValueError: 4 does not divide the width.

    >>> sincos2d(2, 3, 8)[0, 4].astype(float).round(3).tolist()
    [0.841, 0.0, 0.54, 1.0, 0.841, 0.0, 0.54, 1.0]
    """
    if width % 4 or width < 8:
        raise ValueError(f"position 'sincos2d' needs a width of 8, 12, 16, ..., not {width}")
    frequencies = 1e4 ** -np.linspace(0, 1, width // 4)
    row, column = np.mgrid[:rows, :columns].reshape(2, -1, 1) * frequencies
    parts = (np.sin(column), np.cos(column), np.sin(row), np.cos(row))
    return np.concatenate(parts, 1)[None].astype(np.float32)


class Backbone(Stack):
    """Patches as tokens, blocks that normalise what enters them, a norm, and one vector."""

    def __init__(self, shape, sizes, patch, pool, class_token, position, dropout, block, rngs):
        rows, columns = shape[0] // patch, shape[1] // patch
        width, dtype = sizes['width'], block['dtype']
        self.patch = nnx.Conv(
            shape[2],
            width,
            (patch, patch),
            patch,
            padding='VALID',
            dtype=dtype,
            conv_general_dilated=patches_conv,
            rngs=rngs,
        )
        self.size, self.pool, self.learnt = patch, pool, position != 'sincos2d'
        self.layers, self.classes = sizes['layers'], int(class_token)
        self.placed = position == 'learnt'  # whether the class token has a position too
        if class_token:
            self.class_token = nnx.Param(jnp.zeros((1, 1, width)))
        if self.learnt:
            count = rows * columns + self.classes * self.placed
            self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, count, width)))
        else:
            sincos2d(rows, columns, width)
        self.dropout = nnx.Dropout(dropout)
        for n in range(self.layers):
            made = Block(
                width, sizes['heads'], sizes['hidden'], dropout=dropout, rngs=rngs, **block
            )
            setattr(self, f'block{n}', made)
        self.norm = layer_norm(width, block['epsilon'], jnp.float32, rngs)
        self.represents = sizes['representation'] > 0
        if self.represents:
            self.representation = nnx.Linear(width, sizes['representation'], rngs=rngs)

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a token, the class token's first, not yet normalised: (B, L, D)."""
        x = self.dropout(self.tokens(x_BxHxWxC), rngs=rngs)
        return self.through(x, None, rngs)

    def tokens(self, x_BxHxWxC: jax.Array) -> jax.Array:
        """Patches with their positions, behind the class token: (B, L, D).

        Raises:
          ValueError: the picture has not the number of patches that there are positions for.
        """
        check_divides(x_BxHxWxC.shape[1:], self.size)
        x = self.patch(x_BxHxWxC)
        batch, rows, columns, width = x.shape
        x_BxLxD = x.reshape(batch, rows * columns, width)
        if not self.learnt:
            x_BxLxD = x_BxLxD + jnp.asarray(sincos2d(rows, columns, width), x.dtype)
        elif not self.placed:
            x_BxLxD = self.positioned(x_BxLxD)
        if self.classes:
            token = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (batch, 1, width))
            x_BxLxD = jnp.concatenate([token, x_BxLxD], 1)
        return self.positioned(x_BxLxD) if self.placed else x_BxLxD

    def positioned(self, x_BxLxD: jax.Array) -> jax.Array:
        """Adds the learnt positions."""
        position_1xLxD = self.position[...]
        if position_1xLxD.shape[1] != x_BxLxD.shape[1]:
            raise ValueError(
                f'the picture makes {x_BxLxD.shape[1]} tokens, and there are positions for '
                f'{position_1xLxD.shape[1]}; give it in the size of the example'
            )
        return x_BxLxD + position_1xLxD.astype(x_BxLxD.dtype)

    def pooled(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a picture, float32: (B, D)."""
        x_BxLxD = self(x_BxHxWxC, rngs).astype(jnp.float32)
        if self.pool == 'cls':
            x_BxD = self.norm(x_BxLxD[:, 0])
        elif self.pool == 'mean':
            x_BxD = self.norm(x_BxLxD[:, self.classes :]).mean(1)
        else:
            x_BxD = self.norm(x_BxLxD[:, self.classes :].mean(1))
        return jnp.tanh(self.representation(x_BxD)) if self.represents else x_BxD


class Vit(nnx.Module):
    """A vision transformer of any size, for pictures of any size that the patches divide.

    A batch has `image` (B, H, W, C) float32, normalised. Learnt positions are one leaf
    (1, positions, width), for the patches of the example's picture row by row, the class token's
    first; for pictures of another size `transfer.surgery` resizes it. Weights start as in the
    original implementation: head and class token at zero, positions normal of deviation 0.02,
    kernels of the blocks uniform (Glorot and Bengio 2010).

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      width: of a token's vector. ViT-B is the default; SIZES has the numbers of Ti, S, L and H.
      layers: number of blocks.
      heads: of attention; divides the width.
      hidden: size of the hidden layer in each block.
      patch: pixels on the side of a patch.
      pool: what stands for the picture: 'cls' is the class token, normalised; 'mean' the mean of
        the normalised patches; 'mean_norm' the mean of the patches, normalised.
      class_token: whether there is one; 'cls' needs it.
      position: 'learnt' for every token; 'learnt_patches' for all but the class token;
        'sincos2d' for those too, but not learnt.
      representation: size of a tanh layer before the head, which the paper has for pretraining
        alone (section 3.1); 0 is none.
      activation: 'gelu' or 'gelu_tanh', its approximation, with which the original weights were
        trained.
      epsilon: of the layer norms.
      dropout: share of embeddings and of each block's parts dropped in training.
      attention_dropout: share of attention weights dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in; parameters stay float32.

    Raises:
      ValueError: an argument makes no sense, or patches don't divide the example's picture.

    >>> example = {'image': jax.ShapeDtypeStruct((32, 48, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: Vit(example, 10, rngs=nnx.Rngs(params=0)))
    >>> model.backbone.position.shape, model.head.kernel.shape
    ((1, 7, 768), (768, 10))
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        patch: int = 16,
        pool: str = 'cls',
        class_token: bool = True,
        position: str = 'learnt',
        representation: int = 0,
        activation: str = 'gelu',
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        sizes = dict(width=width, layers=layers, heads=heads, hidden=hidden)
        check_positive(**sizes, patch=patch)
        check_choices(pool, class_token, position, representation)
        shape = image_shape(example)
        check_divides(shape, patch)
        block = dict(
            activation=activation,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
            dtype=dtype_of(dtype),
        )
        sizes['representation'] = representation
        self.backbone = Backbone(
            shape, sizes, patch, pool, class_token, position, dropout, block, rngs
        )
        self.head = nnx.Linear(
            representation or width, outputs, kernel_init=nnx.initializers.zeros, rngs=rngs
        )

    def stages(self) -> tuple[str, ...]:
        """Embeddings, each block and the head, bottom to top; see `Model.outline`."""
        embeddings = ('patch', 'class_token', 'position')
        return transformer_stages(embeddings, self.backbone.layers, ('norm', 'representation'))

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """What stands for each picture, float32: (batch, width or representation)."""
        return self.backbone.pooled(batch['image'], rngs)

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.features(batch, rngs))


def check_positive(**sizes: int) -> None:
    """Raises ValueError for a size below one."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f'{name} is {size}; it must be at least 1')


def check_choices(pool: str, class_token: bool, position: str, representation: int) -> None:
    """Raises ValueError for choices that there are not, or that don't go together."""
    for name, choice, choices in (('pool', pool, POOLS), ('position', position, POSITIONS)):
        if choice not in choices:
            raise ValueError(f'{name} is {choice!r}; it takes one of {choices}')
    if pool == 'cls' and not class_token:
        raise ValueError("pool 'cls' needs class_token=True; without it pool is 'mean'")
    if representation < 0:
        raise ValueError(f'representation is {representation}; it must be at least 0')


def check_divides(shape: tuple[int, ...], patch: int) -> None:
    """Raises ValueError if patches leave a rest of the picture."""
    height, width = shape[:2]
    if height % patch or width % patch or not height * width:
        raise ValueError(
            f'patches of {patch} x {patch} pixels do not divide a picture of {height} x {width}; '
            'choose patch or the image size so that they do'
        )
