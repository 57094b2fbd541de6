"""Means over positions of sequences, some of which stand for nothing: padding, or no target."""

import jax
import jax.numpy as jnp


def mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The mean of values, those of weight 0 left out.

    Args:
      values: (B,), or (B, P) of sequences.
      weights: (B, P), 0 or 1; None is 1 each. Without any 1 the mean is 0.

    >>> float(mean(jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[1.0, 1.0, 0.0]])))
    2.0
    """
    if weights is None:
        return values.mean()
    # Chosen, not multiplied: what stands at padding may be no number.
    return jnp.where(weights > 0, values, 0.0).sum() / jnp.maximum(weights.sum(), 1)


def averaged(x: jax.Array, real_BxP: jax.Array | None = None) -> jax.Array:
    """Each example's mean over its real positions, float32: (B, ..., D) to (B, D).

    Args:
      x: (B, P, D), or any number of axes of positions where all are real; (B, D) has none.
      real_BxP: 1 at real positions, 0 at padding; None is 1 each.

    >>> averaged(jnp.ones((2, 3, 3, 4))).shape
    (2, 4)
    >>> averaged(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[1.0, 1.0, 0.0]])).tolist()
    [[1.0, 2.0]]
    """
    x = x.astype(jnp.float32)
    if x.ndim == 2:
        return x
    if real_BxP is None:
        return x.reshape(x.shape[0], -1, x.shape[-1]).mean(1)
    count_Bx1 = jnp.maximum(real_BxP.sum(1, keepdims=True), 1)
    kept = jnp.where(real_BxP[:, :, None] > 0, x, 0.0)
    return kept.sum(1) / count_Bx1
