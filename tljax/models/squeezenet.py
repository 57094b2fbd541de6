"""SqueezeNet 1.1 (Iandola et al. 2016; version 1.1 of its authors' repository)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import conv, dtype_of, image_shape, max_pool
from tljax.models.outline import HEAD

STEM = 64
# Number of each fire module -> channels squeezed to, channels of each of its two expansions.
FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}
POOLED = (2, 4, 6)  # fire modules that a pooling stands before
FEATURES = 2 * FIRES[9][1]
UNIFORM = nnx.initializers.variance_scaling(2.0, 'fan_in', 'uniform')


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 one beside each other (figure 1)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int, dtype: Any, rngs: nnx.Rngs):
        options: Any = dict(bias=True, kernel_init=UNIFORM, dtype=dtype, rngs=rngs)
        self.squeeze = conv(inputs, squeezed, 1, **options)
        self.expand1 = conv(squeezed, expanded, 1, **options)
        self.expand3 = conv(squeezed, expanded, 3, **options)

    def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
        x = nnx.relu(self.squeeze(x_BxHxWxI))
        return nnx.relu(jnp.concatenate([self.expand1(x), self.expand3(x)], -1))


class Backbone(nnx.Module):
    """A 3x3 convolution, three poolings and eight fire modules; nothing but these pads."""

    def __init__(self, channels: int, ceil: bool, dtype: Any, rngs: nnx.Rngs):
        self.ceil = ceil
        self.stem = conv(
            channels,
            STEM,
            3,
            stride=2,
            padding=0,
            bias=True,
            kernel_init=UNIFORM,
            dtype=dtype,
            rngs=rngs,
        )
        inputs = STEM
        for n, (squeezed, expanded) in FIRES.items():
            setattr(self, f'fire{n}', Fire(inputs, squeezed, expanded, dtype, rngs))
            inputs = 2 * expanded

    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        """The last map: (B, about H / 16, about W / 16, 512)."""
        x = nnx.relu(self.stem(x_BxHxWxC))
        for n in FIRES:
            x = max_pool(x, 3, 2, ceil=self.ceil) if n in POOLED else x
            x = getattr(self, f'fire{n}')(x)
        return x


class SqueezeNet(nnx.Module):
    """SqueezeNet 1.1 for photographs of any size from 17 pixels on, and a head at every position.

    A batch has `image` (B, H, W, C) float32, normalised. As in the original, the head is applied at
    every position of the last map, then a ReLU, and only then is the mean over positions taken. So
    logits are never negative, and are not the head applied to `features`, whose mean comes first.
    Weights start as torchvision's do: kernels uniform with variance 2 / fan-in, the head's normal
    with deviation 0.01, biases at zero.

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      ceil_mode: whether a pooling also takes windows that reach over the far edge, as in Caffe and
        torchvision; Keras's don't. It is the same at 224 pixels, and is not at 227.
      dropout: share of the last map that is dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in; parameters and the head stay float32.

    Raises:
      ValueError: the picture is too small, there is no such dtype, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((224, 224, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: SqueezeNet(example, 1000, rngs=nnx.Rngs(params=0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    1235496
    """

    reads = 'image'

    stem_stages = 1

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        ceil_mode: bool = True,
        dropout: float = 0.5,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape(example)
        if not pixels_left(min(height, width), ceil_mode):
            smallest = next(n for n in range(1, 100) if pixels_left(n, ceil_mode))
            raise ValueError(
                f'a {height}x{width} picture is too small: it takes at least {smallest}x{smallest}'
            )
        self.backbone = Backbone(channels, ceil_mode, dtype_of(dtype), rngs)
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(
            FEATURES, outputs, kernel_init=nnx.initializers.normal(0.01), rngs=rngs
        )

    def stages(self) -> tuple[str, ...]:
        """The stem, each fire module and the head, bottom to top; see `Model.outline`."""
        return ('backbone/stem/.*', *(f'backbone/fire{n}/.*' for n in FIRES), HEAD)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The mean over positions of the last map, float32: (batch, 512)."""
        return self.backbone(batch['image']).astype(jnp.float32).mean((1, 2))

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        x_BxHxWxD = self.backbone(batch['image']).astype(jnp.float32)
        return nnx.relu(self.head(self.dropout(x_BxHxWxD, rngs=rngs))).mean((1, 2))


def pixels_left(length: int, ceil: bool) -> int:
    """Rows or columns of the last map, from those of the picture; 0 if none is left.

    >>> [pixels_left(n, ceil) for n in (224, 227) for ceil in (True, False)]
    [13, 13, 14, 13]
    """
    left = (length - 3) // 2 + 1
    for _ in POOLED:
        # A last window may reach over the edge, but begins inside.
        left = (left - 3 + (1 if ceil else 0)) // 2 + 1
    return max(left, 0)
