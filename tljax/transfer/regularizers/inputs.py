"""Mixed examples: mixup and CutMix."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tljax.transfer.regularizers.base import Batch, Regularizer, number

IMAGE = frozenset({'image'})
Mix = Callable[[jax.Array, int, int], jax.Array]


def mixup(*, alpha: float = 0.2) -> Regularizer:
    """Each picture becomes share x_i + (1 - share) x_j, and so do the labels.

    mixup (Zhang et al. 2018, section 2): the share is drawn from Beta(alpha, alpha), as in the
    paper's figure 1 one for a batch, and j is a random permutation of the batch. The paper takes
    0.2 for ImageNet, 1 for CIFAR.

    Args:
      alpha: the larger, the more evenly examples are mixed.
    """
    alpha = number('mixup', 'alpha', alpha, above=0)

    def mix(key: jax.Array, height: int, width: int) -> jax.Array:
        return jnp.full((height, width), jax.random.beta(key, alpha, alpha))

    return Regularizer('mixup', needs=IMAGE, mix=mix)


def cutmix(*, alpha: float = 1.0) -> Regularizer:
    """A rectangle of each picture is another's; the labels' shares are the areas'.

    CutMix (Yun et al. 2019, section 3.1): the share is drawn from Beta(alpha, alpha), sides are
    sqrt(1 - share) of the picture's, the centre is uniform, and where the rectangle reaches over
    the edge the share is that of the area left.

    Args:
      alpha: the paper takes 1, which is uniform.
    """
    alpha = number('cutmix', 'alpha', alpha, above=0)

    def mix(key: jax.Array, height: int, width: int) -> jax.Array:
        share_key, box_key = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
        return 1.0 - box(box_key, side, height, width)

    return Regularizer('cutmix', needs=IMAGE, mix=mix)


def mixed(batch: Batch, order: jax.Array, kept_HxW: jax.Array) -> Batch:
    """A batch mixed with itself in another order.

    Args:
      batch: with `image` (B, H, W, C) and `label` (B,).
      order: (B,) indices of the partners.
      kept_HxW: each pixel's share of the example itself; the label's is their mean.

    Returns:
      The batch, with `other_label` (B,) and `share` (B,) beside it.
    """
    image, kept = batch['image'], kept_HxW[None, :, :, None]
    blend = jnp.where(kept == 1, image, kept * image + (1 - kept) * image[order])
    share_B = jnp.broadcast_to(kept_HxW.mean(), batch['label'].shape)
    other = {'other_label': batch['label'][order], 'share': share_B}
    return {**batch, 'image': blend.astype(image.dtype), **other}


def box(key: jax.Array, side: jax.Array, height: int, width: int) -> jax.Array:
    """A rectangle with its centre anywhere, cut off at the edges: (height, width), 1 inside.

    Args:
      side: of the rectangle, as a share of the picture's.
    """
    lines = []
    for length, axis_key in zip((height, width), jax.random.split(key), strict=True):
        centre = jax.random.randint(axis_key, (), 0, length)
        extent = jnp.floor(side * length).astype(jnp.int32)
        first, at = centre - extent // 2, jnp.arange(length)
        lines.append((at >= first) & (at < first + extent))
    return (lines[0][:, None] & lines[1][None, :]).astype(jnp.float32)


def by_one_of(mixes: Sequence[Mix], batch: Batch, key: jax.Array) -> Batch:
    """Mixes a batch by one of several ways, drawn anew for each batch."""
    way_key, order_key, mix_key = jax.random.split(key, 3)
    size, height, width, _ = batch['image'].shape
    way = jax.random.randint(way_key, (), 0, len(mixes))
    kept_HxW = jnp.stack([mix(mix_key, height, width) for mix in mixes])[way]
    return mixed(batch, jax.random.permutation(order_key, size), kept_HxW)
