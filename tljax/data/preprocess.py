"""What happens to a batch on the device."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp


def normalise(
    batch: Mapping[str, jax.Array], mean: Sequence[float] = (), std: Sequence[float] = ()
) -> dict[str, jax.Array]:
    """Brings the images of a batch to float32; the other entries stay as they are.

    Args:
      batch: 'image' (..., height, width, channels) uint8, and others; without one it stays as is.
      mean: subtracted after division by 255: one number, or one a channel; () is none.
      std: divided by, likewise.

    Returns:
      The batch, with (image / 255 - mean) / std.

    >>> normalise({'image': jnp.full((1, 1, 1), 255, jnp.uint8)}, (0.5,), (0.25,))['image'].item()
    2.0
    """
    if 'image' not in batch:
        return dict(batch)
    image = batch['image'].astype(jnp.float32) / 255
    if len(mean):
        image = image - _across(mean, image.ndim)
    if len(std):
        image = image / _across(std, image.ndim)
    return {**batch, 'image': image}


def _across(values: Sequence[float], ndim: int) -> jax.Array:
    """(channels,) as (1, ..., 1, channels): ranks are never promoted silently here."""
    array = jnp.asarray(values, jnp.float32)
    return array.reshape((1,) * (ndim - 1) + (-1,))
