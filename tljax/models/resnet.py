"""ResNets (He et al. 2016): 18 to 152 for photographs, and those of section 4.2 for CIFAR.

Paths are `backbone/stem`, `backbone/stage1/block0/conv1`, its `norm1`, and where the shape changes
`downsample` with `downsample_norm`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import batch_norm, conv, dtype_of, image_shape, linear, max_pool
from tljax.models.outline import HEAD

Convs = list[tuple[int, int, int]]
# Blocks of each stage (table 1).
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
SHORTCUTS = ('projection', 'pad')


def basic(width: int, stride: int) -> Convs:
    """Two 3x3 convolutions, as (outputs, size, stride) of each."""
    return [(width, 3, stride), (width, 3, 1)]


def bottleneck(width: int, stride: int) -> Convs:
    """1x1, 3x3 and 1x1 convolutions.

    The 3x3 one has the stride ("v1.5"), as in torchvision's weights; the paper gives it to the
    first, which then never sees three pixels of four.
    """
    return [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]


class Block(nnx.Module):
    """Convolutions with batch norms, and a shortcut around them (section 3.1).

    Args:
      inputs: channels.
      convs: (outputs, size, stride) of each convolution.
      shortcut: where the shape changes: 'projection' is a 1x1 convolution with a batch norm
        (option B of section 3.3), 'pad' leaves pixels out and adds channels of zeros on both
        sides (option A).
      zero_init_last: whether the last norm's scale starts at zero, so that the block starts as
        its shortcut (Goyal et al. 2017, section 5.1).
      init: of the kernels; None is that of `layers.conv`.
    """

    def __init__(
        self,
        inputs: int,
        convs: Convs,
        *,
        shortcut: str = 'projection',
        zero_init_last: bool = False,
        init: Any = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.count, self.stride, channels = len(convs), 1, inputs
        for n, (outputs, size, stride) in enumerate(convs, 1):
            zero = zero_init_last and n == self.count
            scale = nnx.initializers.zeros if zero else nnx.initializers.ones
            made = conv(
                channels, outputs, size, stride=stride, kernel_init=init, dtype=dtype, rngs=rngs
            )
            setattr(self, f'conv{n}', made)
            setattr(self, f'norm{n}', batch_norm(outputs, dtype=dtype, scale_init=scale, rngs=rngs))
            self.stride, channels = self.stride * stride, outputs
        self.added = channels - inputs
        self.shortcut = shortcut if self.added or self.stride > 1 else 'identity'
        if self.shortcut == 'projection':
            self.downsample = conv(
                inputs, channels, 1, stride=self.stride, kernel_init=init, dtype=dtype, rngs=rngs
            )
            self.downsample_norm = batch_norm(channels, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        y = x_BxHxWxC
        for n in range(1, self.count + 1):
            y = getattr(self, f'norm{n}')(getattr(self, f'conv{n}')(y))
            if n < self.count:
                y = nnx.relu(y)
        return nnx.relu(y + self.around(x_BxHxWxC))

    def around(self, x_BxHxWxC: jax.Array) -> jax.Array:
        """What the shortcut gives."""
        if self.shortcut == 'projection':
            return self.downsample_norm(self.downsample(x_BxHxWxC))
        if self.shortcut == 'pad':
            before = self.added // 2
            margins = ((0, 0), (0, 0), (0, 0), (before, self.added - before))
            return jnp.pad(x_BxHxWxC[:, :: self.stride, :: self.stride], margins)
        return x_BxHxWxC


class Stage(nnx.Module):
    """Blocks, the first of which may halve height and width."""

    def __init__(self, inputs, width, stride, count, convs, options):
        self.count = count
        for b in range(count):
            sizes = convs(width, stride if b == 0 else 1)
            setattr(self, f'block{b}', Block(inputs, sizes, **options))
            inputs = sizes[-1][0]

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        for b in range(self.count):
            x_BxHxWxC = getattr(self, f'block{b}')(x_BxHxWxC)
        return x_BxHxWxC


def stages_of(count: int) -> tuple[str, ...]:
    """The stages of a network with that many: the stem, each stage, the head.

    >>> stages_of(1)
    ('backbone/stem(_norm)?/.*', 'backbone/stage1/.*', 'head/.*')
    """
    return (
        'backbone/stem(_norm)?/.*',
        *(f'backbone/stage{s}/.*' for s in range(1, count + 1)),
        HEAD,
    )


class Backbone(nnx.Module):
    """A first convolution, stages of blocks, and the mean over pixels.

    Args:
      channels: of the picture.
      width: of the first convolution and the first stage; each stage has twice the last one's.
      blocks: of each stage.
      convs: of a block, from width and stride.
      photographs: whether a 7x7 convolution and a pooling leave a sixteenth of the pixels before
        the first stage, or a 3x3 convolution all of them.
      options: of every block.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: Sequence[int],
        convs: Callable[[int, int], Convs],
        photographs: bool,
        options: Mapping[str, Any],
    ):
        init, dtype, rngs = options.get('init'), options['dtype'], options['rngs']
        size, stride = (7, 2) if photographs else (3, 1)
        self.stem = conv(
            channels, width, size, stride=stride, kernel_init=init, dtype=dtype, rngs=rngs
        )
        self.stem_norm = batch_norm(width, dtype=dtype, rngs=rngs)
        self.photographs, self.stages, inputs = photographs, len(blocks), width
        for s, count in enumerate(blocks):
            stage = Stage(inputs, width * 2**s, 2 if s else 1, count, convs, options)
            setattr(self, f'stage{s + 1}', stage)
            inputs = convs(width * 2**s, 1)[-1][0]
        self.outputs = inputs

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        """One vector a picture, float32: (B, outputs)."""
        x = nnx.relu(self.stem_norm(self.stem(x_BxHxWxC)))
        if self.photographs:
            x = max_pool(x, 3, 2, padding=1)
        for s in range(1, self.stages + 1):
            x = getattr(self, f'stage{s}')(x)
        return x.astype(jnp.float32).mean((1, 2))


class ResNet(nnx.Module):
    """ResNet-18, 34, 50, 101 or 152 for photographs of any size, and a linear head.

    A batch has `image` (B, H, W, C) float32, normalised. Weights start as torchvision's do:
    kernels normal with variance 2 / fan-out, the head uniform within 1 / sqrt(features).

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      depth: 18, 34, 50, 101 or 152.
      zero_init_last: whether each block starts as its shortcut (Goyal et al. 2017, section 5.1).
      dtype: 'float32' or 'bfloat16' to compute in; parameters and statistics stay float32.

    Raises:
      ValueError: there is no such depth or dtype, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((32, 32, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: ResNet(example, 10, depth=18, rngs=nnx.Rngs(params=0)))
    >>> model.head.kernel.shape, model.backbone.stage4.block0.conv1.kernel.shape
    ((512, 10), (3, 3, 256, 512))
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        depth: int = 50,
        zero_init_last: bool = False,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if depth not in BLOCKS:
            raise ValueError(f'depth is {depth}; it takes one of {tuple(BLOCKS)}')
        options = dict(zero_init_last=zero_init_last, dtype=dtype_of(dtype), rngs=rngs)
        convs = basic if depth < 50 else bottleneck
        channels = image_shape(example)[2]
        self.backbone = Backbone(channels, 64, BLOCKS[depth], convs, True, options)
        self.head = linear(self.backbone.outputs, outputs, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """The stem, each stage and the head, bottom to top; see `Model.outline`."""
        return stages_of(self.backbone.stages)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The mean over pixels of the last stage, float32: (batch, 512 or 2048)."""
        return self.backbone(batch['image'])

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.features(batch, rngs))


class CifarResNet(nnx.Module):
    """The small ResNets of section 4.2: three stages of 16, 32 and 64 channels.

    A batch has `image` (B, H, W, C) float32, normalised; 32 x 32 is what they are for. Kernels
    start normal with variance 2 / fan-in (He et al. 2015, section 2.2), the head's among them.

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      depth: 6 n + 2 for n blocks a stage: 20, 32, 44, 56, 110.
      shortcut: where the shape changes: 'pad' (option A, the paper's here) or 'projection' (B).
      dtype: 'float32' or 'bfloat16' to compute in; parameters and statistics stay float32.

    Raises:
      ValueError: an argument makes no sense, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((32, 32, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: CifarResNet(example, 10, rngs=nnx.Rngs(params=0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    269722
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        depth: int = 20,
        shortcut: str = 'pad',
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f'depth is {depth}; it takes 6 n + 2, such as 20, 32, 44, 56 or 110')
        if shortcut not in SHORTCUTS:
            raise ValueError(f'shortcut is {shortcut!r}; it takes one of {SHORTCUTS}')
        init = nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal')
        options = dict(shortcut=shortcut, init=init, dtype=dtype_of(dtype), rngs=rngs)
        channels, blocks = image_shape(example)[2], 3 * (depth // 6,)
        self.backbone = Backbone(channels, 16, blocks, basic, False, options)
        self.head = linear(self.backbone.outputs, outputs, kernel_init=init, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """The stem, each stage and the head, bottom to top; see `Model.outline`."""
        return stages_of(self.backbone.stages)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The mean over pixels of the last stage, float32: (batch, 64)."""
        return self.backbone(batch['image'])

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.features(batch, rngs))
