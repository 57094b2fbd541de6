"""EfficientNet-Lite0 (Tan and Le 2019, section 4, without what small devices lack).

EfficientNet-Lite's authors left squeeze-and-excitation out of EfficientNet, and put ReLU6 in the
place of swish; Lite0 is otherwise their B0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import (
    batch_norm,
    conv,
    dtype_of,
    image_shape,
    shifted_slices,
    windowed_conv,
)
from tljax.models.outline import HEAD
from tljax.models.resnet import stages_of

STEM, LAST = 32, 1280
# Each stage (table 1): size of the depthwise kernels, first stride, expansion, outputs, blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
PADDINGS = ('torch', 'tf')


def depthwise_conv(
    x_BxHxWxC: jax.Array,
    kernel_hxwx1xC: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **rest: Any,
) -> jax.Array:
    """A convolution of every channel by itself, on a CPU as a sum of shifted products.

    The drop-in for `nnx.Conv(conv_general_dilated=...)`, without dilation: with XLA's own
    depthwise convolution the whole network is 7 times slower there, and its gradient 3.5 times.

    >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    >>> depthwise_conv(x, kernel, (1, 1), 'SAME')[0, :2, :2, 0].tolist()
    [[4.0, 6.0], [6.0, 9.0]]
    """
    if jax.default_backend() != 'cpu':
        return jax.lax.conv_general_dilated(
            x_BxHxWxC, kernel_hxwx1xC, window_strides, padding, **rest
        )
    return shifted_products(x_BxHxWxC, kernel_hxwx1xC, window_strides, padding)


def shifted_products(
    x_BxHxWxC: jax.Array, kernel_hxwx1xC: jax.Array, strides: tuple[int, int], padding: Any
) -> jax.Array:
    """The sum, over places in the kernel, of the shifted picture times the kernel there.

    It is summed in float32, as XLA's convolutions are.
    """
    slices = shifted_slices(
        x_BxHxWxC.astype(jnp.float32), kernel_hxwx1xC.shape[:2], strides, padding
    )
    kernels = kernel_hxwx1xC.astype(jnp.float32).reshape(-1, 1, 1, 1, kernel_hxwx1xC.shape[-1])
    total = sum(x * kernel for x, kernel in zip(slices, kernels, strict=True))
    return total.astype(x_BxHxWxC.dtype)


def padded_conv(
    inputs: int,
    outputs: int,
    size: int,
    stride: int,
    padding: str,
    *,
    depthwise: bool = False,
    dtype: Any,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A 3x3 or 5x5 convolution without bias.

    Args:
      padding: 'torch' pads both sides alike, 'tf' so that the outputs number ceil(pixels / stride),
        with the odd one of the margin at the end.
      depthwise: whether no channel sees another.
    """
    margin = (size // 2, size // 2)
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding='SAME' if padding == 'tf' else (margin, margin),
        feature_group_count=inputs if depthwise else 1,
        use_bias=False,
        dtype=dtype,
        # Fan-out a group, which for a depthwise kernel is what one output sees.
        kernel_init=nnx.initializers.variance_scaling(
            2.0, 'fan_in' if depthwise else 'fan_out', 'normal'
        ),
        conv_general_dilated=depthwise_conv if depthwise else windowed_conv,
        rngs=rngs,
    )


class Block(nnx.Module):
    """To more channels, a depthwise convolution, and to few again (Sandler et al. 2018, figure 3).

    Where the shape stays the same the input is added, unless the block is dropped for an example
    (stochastic depth, Huang et al. 2016, section 3).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        expansion: int,
        *,
        drop: float,
        padding: str,
        norm: Mapping[str, Any],
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: Any = dict(dtype=dtype, rngs=rngs)
        middle = inputs * expansion
        self.expanded = expansion != 1
        if self.expanded:
            self.expand = conv(inputs, middle, 1, **options)
            self.expand_norm = batch_norm(middle, **norm, **options)
        self.depthwise = padded_conv(
            middle, middle, size, stride, padding, depthwise=True, **options
        )
        self.depthwise_norm = batch_norm(middle, **norm, **options)
        self.project = conv(middle, outputs, 1, **options)
        self.project_norm = batch_norm(outputs, **norm, **options)
        self.added = stride == 1 and inputs == outputs
        self.drop = nnx.Dropout(drop, broadcast_dims=(1, 2, 3))

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = x_BxHxWxC
        if self.expanded:
            y = nnx.relu6(self.expand_norm(self.expand(y)))
        y = nnx.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return self.drop(y, rngs=rngs) + x_BxHxWxC.astype(y.dtype) if self.added else y


class Stage(nnx.Module):
    """Blocks of one resolution, the first of which may halve it."""

    def __init__(self, blocks):
        self.count = len(blocks)
        for b, block in enumerate(blocks):
            setattr(self, f'block{b}', block)

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        for b in range(self.count):
            x_BxHxWxC = getattr(self, f'block{b}')(x_BxHxWxC, rngs)
        return x_BxHxWxC


class Backbone(nnx.Module):
    """A 3x3 convolution, seven stages of blocks, a 1x1 convolution, and the mean over pixels."""

    def __init__(
        self,
        channels: int,
        *,
        padding: str,
        norm: Mapping[str, Any],
        drop_path: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: Any = dict(dtype=dtype, rngs=rngs)
        self.stem = padded_conv(channels, STEM, 3, 2, padding, **options)
        self.stem_norm = batch_norm(STEM, **norm, **options)
        total, done, inputs = sum(stage[-1] for stage in STAGES), 0, STEM
        for s, (size, stride, expansion, outputs, count) in enumerate(STAGES, 1):
            blocks = []
            for b in range(count):
                blocks.append(
                    Block(
                        inputs,
                        outputs,
                        size,
                        stride if b == 0 else 1,
                        expansion,
                        drop=drop_path * done / total,
                        padding=padding,
                        norm=norm,
                        **options,
                    )
                )
                inputs, done = outputs, done + 1
            setattr(self, f'stage{s}', Stage(blocks))
        self.last = conv(inputs, LAST, 1, **options)
        self.last_norm = batch_norm(LAST, **norm, **options)

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a picture, float32: (B, 1280)."""
        x = nnx.relu6(self.stem_norm(self.stem(x_BxHxWxC)))
        for s in range(1, len(STAGES) + 1):
            x = getattr(self, f'stage{s}')(x, rngs)
        return nnx.relu6(self.last_norm(self.last(x))).astype(jnp.float32).mean((1, 2))


class EfficientNetLite(nnx.Module):
    """EfficientNet-Lite0 for photographs of any size, and a linear head.

    A batch has `image` (B, H, W, C) float32, normalised. Weights start as the original's do:
    kernels normal with variance 2 / fan-out, the head uniform within 1 / sqrt(outputs).

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      padding: of strided convolutions: 'torch' on both sides alike, or 'tf' as in the original,
        which for an even number of pixels pads at the end only. Published weights are of either
        kind, and compute something else with the other.
      epsilon: of the batch norms: 1e-3 in the original, 1e-5 in weights trained in PyTorch.
      momentum: of their running statistics: 0.99 in the original, which takes some hundred steps
        to forget where it started. It changes nothing of what published weights compute.
      dropout: share of the features dropped in training before the head.
      drop_path: share of examples that the last block is dropped for in training; earlier blocks
        have less, down to none, in proportion to their depth.
      dtype: 'float32' or 'bfloat16' to compute in; parameters and statistics stay float32.

    Raises:
      ValueError: there is no such padding or dtype, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((224, 224, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: EfficientNetLite(example, 1000, rngs=nnx.Rngs(params=0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    4652008
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        padding: str = 'torch',
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        if padding not in PADDINGS:
            raise ValueError(f'padding is {padding!r}; it takes one of {PADDINGS}')
        self.backbone = Backbone(
            image_shape(example)[2],
            padding=padding,
            norm=dict(epsilon=epsilon, momentum=momentum),
            drop_path=drop_path,
            dtype=dtype_of(dtype),
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(dropout)
        uniform = nnx.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform')
        self.head = nnx.Linear(LAST, outputs, kernel_init=uniform, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """The stem, each stage, the last convolution and the head, bottom to top."""
        return (*stages_of(len(STAGES))[:-1], 'backbone/last(_norm)?/.*', HEAD)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The mean over pixels of the last map, float32: (batch, 1280)."""
        return self.backbone(batch['image'], rngs)

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.dropout(self.features(batch, rngs), rngs=rngs))
