"""BiT (Kolesnikov et al. 2020): ResNet-v2 with group norms and standardised kernels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import (
    as_they_are,
    dtype_of,
    image_shape,
    max_pool,
    pointwise_conv,
    windowed_conv,
)
from tljax.models.outline import HEAD
from tljax.models.resnet import BLOCKS

DEPTHS = tuple(depth for depth in BLOCKS if depth >= 50)
GROUPS = 32


def standardised(kernel_hxwxIxO: jax.Array, epsilon: float = 1e-10) -> jax.Array:
    """A kernel whose values have mean 0 and variance 1 for each output channel.

    Weight standardisation (Qiao et al. 2019, equation 5).

    >>> kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 2)) + 5
    >>> abs(standardised(kernel).std((0, 1, 2)) - 1).max().item() < 1e-5
    True
    """
    centred = kernel_hxwxIxO - kernel_hxwxIxO.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


class StandardConv(nnx.Module):
    """A convolution without bias by its standardised kernel, padded alike on both sides."""

    def __init__(self, inputs, outputs, size, stride, dtype, rngs):
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.stride, self.margin, self.dtype = stride, size // 2, dtype

    def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
        pointwise = self.kernel.shape[:2] == (1, 1)
        function = pointwise_conv if pointwise else windowed_conv
        return function(
            x_BxHxWxI.astype(self.dtype),
            standardised(self.kernel[...]).astype(self.dtype),
            (self.stride, self.stride),
            2 * ((self.margin, self.margin),),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )


def group_norm(features: int, dtype: Any, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Over 32 groups of channels and all pixels (Wu and He 2018)."""
    return nnx.GroupNorm(
        features,
        GROUPS,
        epsilon=1e-5,
        dtype=dtype,
        use_fast_variance=False,
        promote_dtype=as_they_are,
        rngs=rngs,
    )


class Unit(nnx.Module):
    """A bottleneck that normalises before each convolution (He et al. 2016b, figure 4e).

    The 3x3 convolution has the stride. The shortcut's convolution, where the shape changes, reads
    what the first norm gives.
    """

    def __init__(self, inputs, width, stride, dtype, rngs):
        options: Any = dict(dtype=dtype, rngs=rngs)
        outputs = 4 * width
        self.norm1 = group_norm(inputs, **options)
        self.conv1 = StandardConv(inputs, width, 1, 1, **options)
        self.norm2 = group_norm(width, **options)
        self.conv2 = StandardConv(width, width, 3, stride, **options)
        self.norm3 = group_norm(width, **options)
        self.conv3 = StandardConv(width, outputs, 1, 1, **options)
        self.projected = inputs != outputs or stride > 1
        if self.projected:
            self.downsample = StandardConv(inputs, outputs, 1, stride, **options)

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(x_BxHxWxC))
        around = self.downsample(y) if self.projected else x_BxHxWxC
        y = nnx.relu(self.norm2(self.conv1(y)))
        y = nnx.relu(self.norm3(self.conv2(y)))
        return self.conv3(y) + around


class Stage(nnx.Module):
    """Units, the first of which may halve height and width."""

    def __init__(self, inputs, width, stride, count, dtype, rngs):
        self.count = count
        for b in range(count):
            unit = Unit(4 * width if b else inputs, width, 1 if b else stride, dtype, rngs)
            setattr(self, f'block{b}', unit)

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        for b in range(self.count):
            x_BxHxWxC = getattr(self, f'block{b}')(x_BxHxWxC)
        return x_BxHxWxC


class Backbone(nnx.Module):
    """A 7x7 convolution and a pooling, four stages, a norm, and the mean over pixels."""

    def __init__(self, channels, depth, width, dtype, rngs):
        self.stem = StandardConv(channels, width, 7, 2, dtype, rngs)
        inputs = width
        for s, count in enumerate(BLOCKS[depth]):
            stage = Stage(inputs, width * 2**s, 2 if s else 1, count, dtype, rngs)
            setattr(self, f'stage{s + 1}', stage)
            inputs = 4 * width * 2**s
        self.norm = group_norm(inputs, dtype, rngs)
        self.outputs = inputs

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        """One vector a picture, float32: (B, 2048 width_factor)."""
        x = self.stem(x_BxHxWxC)
        # Padded by zeros, which count among the values, as in the original; no ReLU went before.
        x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        for s in (1, 2, 3, 4):
            x = getattr(self, f'stage{s}')(x)
        return nnx.relu(self.norm(x)).astype(jnp.float32).mean((1, 2))


class Bit(nnx.Module):
    """BiT and a linear head, for photographs of any size.

    A batch has `image` (B, H, W, C) float32, normalised. Nothing depends on the other pictures of
    a batch. The head starts at zero, as in the original.

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      depth: 50, 101 or 152.
      width_factor: of every layer's channels; published are 1 and 3 (and 2 and 4 for 152).
      dtype: 'float32' or 'bfloat16' to compute in; parameters, their standardisation and the
        norms' statistics stay float32.

    Raises:
      ValueError: an argument makes no sense, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((32, 32, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: Bit(example, 1000, rngs=nnx.Rngs(params=0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    25549352
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        depth: int = 50,
        width_factor: int = 1,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if depth not in DEPTHS:
            raise ValueError(f'depth is {depth}; it takes one of {DEPTHS}')
        if width_factor < 1:
            raise ValueError(f'width_factor is {width_factor}; it takes 1, 2, 3, ...')
        channels = image_shape(example)[2]
        self.backbone = Backbone(channels, depth, 64 * width_factor, dtype_of(dtype), rngs)
        zeros = nnx.initializers.zeros
        self.head = nnx.Linear(self.backbone.outputs, outputs, kernel_init=zeros, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """The stem, each stage and the head, bottom to top; see `Model.outline`."""
        stages = (f'backbone/stage{s}/.*' for s in (1, 2, 3))
        return ('backbone/stem/.*', *stages, 'backbone/(stage4|norm)/.*', HEAD)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The mean over pixels of the last norm, float32: (batch, 2048 width_factor)."""
        return self.backbone(batch['image'])

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.features(batch, rngs))
