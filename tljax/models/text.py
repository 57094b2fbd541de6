"""What models of text share: the check of an example, masks of padding, which token is last."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Batch = Mapping[str, jax.Array]


def check_tokens(example: Mapping[str, Any], positions: int) -> None:
    """Looks at the shape of one example.

    Raises:
      ValueError: it has no `tokens`, or more of them than the model has positions.

    >>> check_tokens({'tokens': jax.ShapeDtypeStruct((600,), 'int32')}, 512)
    Traceback (most recent call last):
    ValueError: an example has 600 tokens and the model 512 positions; cut the text, or ...
    """
    if 'tokens' not in example:
        raise ValueError(f"it reads text, under 'tokens'; an example has {sorted(example)}")
    (length,) = example['tokens'].shape
    check_length(length, positions)


def check_length(length: int, positions: int) -> None:
    """Raises a ValueError if there are more tokens than positions."""
    if length > positions:
        raise ValueError(
            f'an example has {length} tokens and the model {positions} positions; cut the text, '
            'or give the model more positions'
        )


def check_at_least_one(**sizes: int) -> None:
    """Raises a ValueError if a size is less than one."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f'{name} is {size}; it must be at least 1')


def padding_mask(batch: Batch) -> jax.Array | None:
    """(B, 1, 1, L), False at padding, which no token then looks at; None without a `mask`."""
    if batch.get('mask') is None:
        return None
    batch_size, length = batch['mask'].shape
    return (batch['mask'] > 0).reshape(batch_size, 1, 1, length)


def real(batch: Batch) -> jax.Array | None:
    """(B, L) float32, 0 at padding by `mask` or by `segments`; None without either.

    >>> real({'segments': jnp.array([[1, 2, 0]])}).tolist()
    [[1.0, 1.0, 0.0]]
    """
    told = [batch[name] > 0 for name in ('mask', 'segments') if batch.get(name) is not None]
    return functools.reduce(jnp.logical_and, told).astype(jnp.float32) if told else None


def within_segments(segments_BxL: jax.Array) -> jax.Array:
    """(B, 1, L, L), True where both tokens are of one document.

    >>> within_segments(jnp.array([[1, 1, 2]]))[0, 0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    return segments_BxL[:, None, :, None] == segments_BxL[:, None, None, :]


def mean_token(x_BxLxD: jax.Array, mask_BxL: jax.Array | None) -> jax.Array:
    """Mean over the tokens that are not padding, in float32; zeros where all is padding.

    >>> mean_token(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[1, 1, 0]])).tolist()
    [[1.0, 2.0]]
    """
    x = x_BxLxD.astype(jnp.float32)
    if mask_BxL is None:
        return x.mean(1)
    real_BxLx1 = (mask_BxL > 0).astype(jnp.float32)[:, :, None]
    return (x * real_BxLx1).sum(1) / jnp.maximum(real_BxLx1.sum(1), 1.0)


def last_token(x_BxLxD: jax.Array, mask_BxL: jax.Array | None) -> jax.Array:
    """The last token that is not padding.

    >>> last_token(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[1, 1, 0]])).tolist()
    [[2.0, 3.0]]
    """
    if mask_BxL is None:
        return x_BxLxD[:, -1]
    length = mask_BxL.shape[1]
    index_B = length - 1 - jnp.argmax(mask_BxL[:, ::-1] > 0, axis=1)
    return jnp.take_along_axis(x_BxLxD, index_B[:, None, None], axis=1)[:, 0]
