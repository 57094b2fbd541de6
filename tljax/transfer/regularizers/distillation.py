"""What the source's own head says: learning without forgetting, and co-tuning."""

import jax
import jax.numpy as jnp
from jax import lax

from tljax.transfer.regularizers.base import Regularizer, View, number
from tljax.transfer.regularizers.positions import mean


def lwf(*, temperature: float = 2.0, weight: float = 1.0) -> Regularizer:
    """weight times the cross-entropy of the old head's outputs with what the source gives.

    Learning without forgetting (Li and Hoiem 2016, section 3, equations 2 to 4): both sides are
    raised to 1 / temperature and normalised again. The source's head is a second head of the model
    for as long as it trains, and is trained where everything is; it isn't saved.

    Args:
      temperature: the paper takes 2.
      weight: the paper takes 1.
    """
    temperature = number('lwf', 'temperature', temperature, above=0)
    weight = number('lwf', 'weight', weight, least=0)

    def term(view: View) -> jax.Array:
        assert view.source is not None
        assert view.source_logits is not None
        sides = view.source_logits, view.source.logits
        return weight * distillation(*sides, temperature, view.scored)

    return Regularizer('lwf', of_source=True, needs=frozenset({'source', 'source_head'}), term=term)


def distillation(
    logits: jax.Array, teacher: jax.Array, temperature: float, scored: jax.Array | None = None
) -> jax.Array:
    """The mean cross-entropy of softened outputs; no gradient goes to the teacher.

    p ** (1 / temperature), normalised, is the softmax of logits / temperature.

    Args:
      logits: (B, S) or (B, P, S).
      teacher: the same shape.
      temperature: of both.
      scored: (B, P), 0 at outputs that are left out; None is 1 each.

    >>> round(float(distillation(jnp.zeros((1, 4)), jnp.ones((1, 4)), 2.0)), 4)
    1.3863
    """
    wanted = jax.nn.softmax(lax.stop_gradient(teacher) / temperature)
    return mean(-(wanted * jax.nn.log_softmax(logits / temperature)).sum(-1), scored)


def co_tuning(*, weight: float = 2.3, temperature: float = 1.0) -> Regularizer:
    """weight times the cross-entropy of the old head with what it said of the example's class.

    Co-Tuning (You et al. 2020, equation 4): p(source class | target class) is the mean of the
    source's probabilities over the class's training examples, the direct way of section 3.2, found
    before the first update. The source's head is a second head, as in `lwf`.

    Args:
      weight: the paper takes 2.3.
      temperature: of the source's probabilities. The paper calibrates it on the source's
        validation data, which isn't here: 1 takes them as they are.
    """
    weight = number('co_tuning', 'weight', weight, least=0)
    temperature = number('co_tuning', 'temperature', temperature, above=0)

    def term(view: View) -> jax.Array:
        assert view.source_logits is not None
        assert view.targets is not None
        wanted = view.targets @ view.measured['relation']
        return weight * -(wanted * jax.nn.log_softmax(view.source_logits)).sum(-1).mean()

    return Regularizer(
        'co_tuning',
        of_source=True,
        needs=frozenset({'source_head', 'relation'}),
        term=term,
        options={'temperature': temperature},
    )


def relation_of(sums_CxS: jax.Array) -> jax.Array:
    """Each class's mean from sums of the source's probabilities; even where there are no examples.

    >>> relation_of(jnp.array([[3.0, 1.0], [0.0, 0.0]])).tolist()
    [[0.75, 0.25], [0.5, 0.5]]
    """
    total = sums_CxS.sum(-1, keepdims=True)
    even = jnp.full_like(sums_CxS, 1 / sums_CxS.shape[-1])
    return jnp.where(total > 0, sums_CxS / jnp.where(total > 0, total, 1), even)
