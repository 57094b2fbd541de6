"""A small convolutional network for small pictures."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from tljax.models.layers import conv3x3, image_shape
from tljax.models.outline import HEAD


class Backbone(nnx.Module):
    """3x3 convolutions, each followed by 2x2 max pooling, then one hidden layer."""

    def __init__(self, shape, widths, hidden, norm, dropout, rngs):
        height, width, channels = shape
        if min(height, width) < 2 ** len(widths):
            raise ValueError(f'{len(widths)} poolings leave nothing of a {height}x{width} picture')
        sizes = [channels, *widths]
        self.convs = nnx.List([conv3x3(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes)])
        self.norms = nnx.List(
            [nnx.BatchNorm(o, momentum=0.9, rngs=rngs) for o in widths] if norm == 'batch' else []
        )
        flat = (height >> len(widths)) * (width >> len(widths)) * sizes[-1]
        self.hidden = nnx.Linear(flat, hidden, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x_BxHxWxC: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = x_BxHxWxC
        for index, conv in enumerate(self.convs):
            x = conv(x)
            if self.norms:
                x = self.norms[index](x)
            x = nnx.max_pool(nnx.relu(x), (2, 2), (2, 2))
        x_BxF = nnx.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.dropout(x_BxF, rngs=rngs)


class ConvNet(nnx.Module):
    """Convolutions and a linear head.

    Args:
      example: needs `image`, of shape (height, width, channels).
      outputs: size of the head.
      widths: channels of each 3x3 convolution; each halves height and width.
      hidden: size of the hidden layer, and so of the features.
      norm: 'none', or 'batch' for batch normalisation after each convolution.
      dropout: share of the features dropped in training.

    Raises:
      ValueError: the picture is too small for that many poolings, or `norm` is unknown.
    """

    reads = 'image'

    def __init__(
        self,
        example: Mapping[str, Any],
        outputs: int,
        *,
        widths: Sequence[int] = (32, 64),
        hidden: int = 64,
        norm: str = 'none',
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if norm not in ('none', 'batch'):
            raise ValueError(f"norm is {norm!r}; it takes 'none' or 'batch'")
        self.backbone = Backbone(image_shape(example), widths, hidden, norm, dropout, rngs)
        self.head = nnx.Linear(hidden, outputs, rngs=rngs)

    def stages(self) -> tuple[str, ...]:
        """Each convolution, the hidden layer and the head, bottom to top; see `Model.outline`."""
        convs = (f'backbone/(convs|norms)/{n}/.*' for n in range(len(self.backbone.convs)))
        return (*convs, 'backbone/hidden/.*', HEAD)

    def features(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """What the head sees: (batch, hidden)."""
        return self.backbone(batch['image'], rngs)

    def __call__(self, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits: (batch, outputs)."""
        return self.head(self.features(batch, rngs))
