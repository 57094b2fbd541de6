"""AlexNet (Krizhevsky et al. 2012) in the form that torchvision publishes weights of."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import (
    adaptive_mean,
    conv,
    dtype_of,
    image_shape,
    linear,
    max_pool,
    uniform_init,
)
from tljax.models.outline import HEAD

# Outputs, size, stride, padding, and whether a pooling follows: torchvision's, after Krizhevsky
# 2014, with one tower and without local response normalisation.
CONVS = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
GRID = 6  # the classifier sees GRID x GRID pixels, whatever the picture's size
SMALLEST = 63  # the last pooling has nothing left of a smaller picture


class Backbone(nnx.Module):
    """Five convolutions, three poolings and two hidden layers."""

    def __init__(self, channels: int, hidden: int, dropout: float, dtype: Any, rngs: nnx.Rngs):
        inputs = channels
        for n, (outputs, size, stride, padding, _) in enumerate(CONVS, 1):
            init = uniform_init(inputs * size * size)
            made = conv(
                inputs,
                outputs,
                size,
                stride=stride,
                padding=padding,
                bias=True,
                dtype=dtype,
                kernel_init=init,
                bias_init=init,
                rngs=rngs,
            )
            setattr(self, f'conv{n}', made)
            inputs = outputs
        self.hidden1 = linear(inputs * GRID * GRID, hidden, dtype=dtype, rngs=rngs)
        self.hidden2 = linear(hidden, hidden, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """One vector a picture, float32: (B, hidden)."""
        x = x_BxHxWxC
        for n, (*_, pooled) in enumerate(CONVS, 1):
            x = nnx.relu(getattr(self, f'conv{n}')(x))
            x = max_pool(x, 3, 2) if pooled else x
        x_BxSxSxC = adaptive_mean(x, GRID)
        # Channels first, so that rows of the kernel are in the order of published files.
        x_BxF = x_BxSxSxC.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x_BxD = nnx.relu(self.hidden1(self.dropout(x_BxF, rngs=rngs)))
        x_BxD = nnx.relu(self.hidden2(self.dropout(x_BxD, rngs=rngs)))
        return x_BxD.astype(jnp.float32)


class AlexNet(nnx.Module):
    """AlexNet and a linear head.

    A batch has `image` (B, H, W, C) float32, normalised, of any size from 63 pixels on: before
    the hidden layers, means over a 6 x 6 grid are taken. Weights start as torchvision's do, by
    PyTorch's defaults.

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      hidden: size of the two hidden layers.
      dropout: share of what each hidden layer reads that is dropped in training.
      dtype: 'float32' or 'bfloat16' to compute in; parameters stay float32.

    Raises:
      ValueError: the picture is too small, there is no such dtype, or the example has no picture.

    >>> example = {'image': jax.ShapeDtypeStruct((224, 224, 3), 'uint8')}
    >>> model = nnx.eval_shape(lambda: AlexNet(example, 1000, rngs=nnx.Rngs(params=0)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    61100840
    """

    reads = 'image'

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        hidden: int = 4096,
        dropout: float = 0.5,
        dtype: str = 'float32',
        rngs: nnx.Rngs,
    ):
        height, width, channels = image_shape(example)
        if min(height, width) < SMALLEST:
            raise ValueError(
                f'a {height}x{width} picture is too small: it takes at least {SMALLEST}x{SMALLEST}'
            )
        self.backbone = Backbone(channels, hidden, dropout, dtype_of(dtype), rngs)
        self.head = linear(hidden, outputs, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """Each layer, bottom to top; see `Model.outline`."""
        convs = (f'backbone/conv{n}/.*' for n in range(1, len(CONVS) + 1))
        return (*convs, 'backbone/hidden1/.*', 'backbone/hidden2/.*', HEAD)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """The second hidden layer, float32: (batch, hidden)."""
        return self.backbone(batch['image'], rngs)

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits, float32: (batch, outputs)."""
        return self.head(self.features(batch, rngs))
