"""Mixed examples: mixup and CutMix."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.transfer.regularizers.base import Batch, Regularizer, number

IMAGE = frozenset({'image'})


def mixup(*, alpha: float = 0.2) -> Regularizer:
    """Each picture becomes share x_i + (1 - share) x_j, and so do the labels.

    mixup (Zhang et al. 2018, section 2): the share is drawn from Beta(alpha, alpha), as in the
    paper's figure 1 one for a batch, and j is a random permutation of the batch. The paper takes
    0.2 for ImageNet, 1 for CIFAR.

    Args:
      alpha: the larger, the more evenly examples are mixed.
    """
    alpha = number('mixup', 'alpha', alpha, above=0)

    def mix(batch: Batch, key: jax.Array) -> Batch:
        share_key, order_key = jax.random.split(key)
        share = jax.random.beta(share_key, alpha, alpha)
        order = jax.random.permutation(order_key, batch['image'].shape[0])
        return mixed(batch, order, share)

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

    def mix(batch: Batch, key: jax.Array) -> Batch:
        share_key, order_key, box_key = jax.random.split(key, 3)
        size, height, width, _ = batch['image'].shape
        side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
        order = jax.random.permutation(order_key, size)
        return pasted(batch, order, box(box_key, side, height, width))

    return Regularizer('cutmix', needs=IMAGE, mix=mix)


def mixed(batch: Batch, order: jax.Array, share: jax.Array) -> Batch:
    """A batch mixed with itself in another order.

    Args:
      batch: with `image` (B, H, W, C) and `label` (B,).
      order: (B,) indices of the partners.
      share: of the first, a scalar.
    """
    image = batch['image']
    blend = (share * image + (1 - share) * image[order]).astype(image.dtype)
    return {**batch, 'image': blend, **labels(batch, order, share)}


def pasted(batch: Batch, order: jax.Array, inside_HxW: jax.Array) -> Batch:
    """A batch with a part of each picture replaced by the partner's.

    Args:
      batch: with `image` (B, H, W, C) and `label` (B,).
      order: (B,) indices of the partners.
      inside_HxW: where the partner's pixels are taken.
    """
    image = batch['image']
    blend = jnp.where(inside_HxW[None, :, :, None], image[order], image)
    return {**batch, 'image': blend, **labels(batch, order, 1 - inside_HxW.mean())}


def labels(batch: Batch, order: jax.Array, share: jax.Array) -> dict[str, jax.Array]:
    """The second label of each example and the first one's share, as classification reads them."""
    shares = jnp.broadcast_to(jnp.asarray(share, jnp.float32), batch['label'].shape)
    return {'other_label': batch['label'][order], 'share': shares}


def box(key: jax.Array, side: jax.Array, height: int, width: int) -> jax.Array:
    """A rectangle with its centre anywhere, cut off at the edges: (height, width) bool.

    Args:
      side: of the rectangle, as a share of the picture's.
    """
    lines = []
    for length, axis_key in zip((height, width), jax.random.split(key), strict=True):
        centre = jax.random.randint(axis_key, (), 0, length)
        extent = jnp.floor(side * length).astype(jnp.int32)
        at = jnp.arange(length)
        lines.append((at >= centre - extent // 2) & (at < centre - extent // 2 + extent))
    return lines[0][:, None] & lines[1][None, :]


def one_of(mixes: tuple[Any, ...], batch: Batch, key: jax.Array) -> Batch:
    """Mixes a batch by one of several ways, drawn anew for each batch."""
    if len(mixes) == 1:
        return mixes[0](batch, key)
    choice_key, key = jax.random.split(key)
    index = jax.random.randint(choice_key, (), 0, len(mixes))
    return jax.lax.switch(
        index, [lambda b, k, mix=mix: dict(mix(b, k)) for mix in mixes], dict(batch), key
    )
