"""R-Drop: two passes with different dropout shall agree."""

import jax
import jax.numpy as jnp

from tljax.transfer.regularizers.base import Regularizer, View, number
from tljax.transfer.regularizers.positions import mean


def r_drop(*, alpha: float = 1.0) -> Regularizer:
    """alpha / 2 times the symmetric divergence of two passes; the task's loss is over both.

    R-Drop (Liang et al. 2021, equation 4), halved as a whole, so that the task's loss keeps its
    scale: the mean of both passes' losses plus alpha / 2 * (KL(p1 | p2) + KL(p2 | p1)) / 2. Each
    step does the work of twice the batch.

    Args:
      alpha: the paper takes 1, 0.5 or 0.1 for GLUE, 5 for translation, 0.6 for ViT.
    """
    alpha = number('r_drop', 'alpha', alpha, least=0)

    def term(view: View) -> jax.Array:
        assert view.twin is not None
        return alpha / 2 * symmetric_divergence(view.model.logits, view.twin, view.scored)

    return Regularizer('r_drop', needs=frozenset({'twin', 'dropout'}), term=term)


def symmetric_divergence(a: jax.Array, b: jax.Array, scored: jax.Array | None = None) -> jax.Array:
    """The mean over predictions of (KL(a | b) + KL(b | a)) / 2 of the softmax of two logits.

    Args:
      a: (B, C) or (B, P, C).
      b: the same shape.
      scored: (B, P), 0 at predictions that are left out; None is 1 each.

    >>> round(float(symmetric_divergence(jnp.zeros((1, 2)), jnp.array([[0.0, 1.0986]]))), 4)
    0.1373
    """
    a, b = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return mean(((jnp.exp(a) - jnp.exp(b)) * (a - b)).sum(-1), scored) / 2
