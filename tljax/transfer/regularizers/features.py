"""Regularisers of features: BSS and DELTA."""

import jax
import jax.numpy as jnp
from jax import lax

from tljax.errors import UserError
from tljax.transfer.regularizers.base import KEY, Regularizer, View, number, whole
from tljax.transfer.regularizers.positions import averaged

ATTENTIONS = ('fisher', 'ablation', 'none')


def bss(*, eta: float = 1e-3, k: int = 1) -> Regularizer:
    """eta times the sum of the squares of the k smallest singular values of the features.

    Batch spectral shrinkage (Chen et al. 2019, equation 5): what a batch's feature matrix has least
    of is what transfers least. It speaks of pretrained features, so a scratch arm goes without.

    Args:
      eta: the paper takes 0.001.
      k: the paper takes 1.
    """
    eta, k = number('bss', 'eta', eta, least=0), whole('bss', 'k', k, least=1)
    return Regularizer('bss', of_source=True, term=lambda view: eta * tail(view.model.features, k))


def tail(features_BxD: jax.Array, k: int) -> jax.Array:
    """The sum of squares of the k smallest singular values.

    The singular vectors are held fixed: a singular value's derivative doesn't see them move, and
    where two values meet theirs has no value.

    >>> float(tail(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2).round(4))
    5.0
    """
    left_BxK, _, _ = jnp.linalg.svd(lax.stop_gradient(features_BxD), full_matrices=False)
    return jnp.square(left_BxK[:, -k:].T @ features_BxD).sum()


def delta(
    *, alpha: float = 0.01, beta: float = 0.01, attention: str = 'fisher', examples: int = 256
) -> Regularizer:
    """alpha / 2 times the squared distance of the feature maps from the source's, by channel.

    DELTA (Li et al. 2019, equations 3 to 6). Of each stage below the head, and of each example, it
    is sum_j C W_j |map_j - map_j of the source|^2 / positions, C the number of channels, with the
    scale of the authors' program, and the mean over the batch; padding is no position. W is the
    softmax over channels of how much the loss rises when a channel is left out, measured on the
    source's features with a logistic regression as the head, before training. New leaves are drawn
    to 0 as in L2-SP.

    Args:
      alpha: of the maps.
      beta: of the new leaves.
      attention: 'ablation' leaves the channels out one by one, as the paper does, which takes as
        many passes as there are channels; 'fisher' takes the rise to second order, which takes
        one, and a backward one for each class; 'none' weighs all channels alike.
      examples: of the training subset, that attention is measured on; at most.
    """
    alpha, beta = number('delta', 'alpha', alpha, least=0), number('delta', 'beta', beta, least=0)
    examples = whole('delta', 'examples', examples, least=2)
    if attention not in ATTENTIONS:
        raise UserError(f'{KEY}: delta: attention is {attention!r}; it takes one of {ATTENTIONS}.')

    def term(view: View) -> jax.Array:
        assert view.source is not None
        weights = view.measured.get('attention', (None,) * len(view.model.maps))
        pairs = zip(view.model.maps, view.source.maps, weights, strict=True)
        real = view.source.real
        return alpha * sum((map_distance(*pair, real) for pair in pairs), jnp.float32(0))

    from tljax.transfer.regularizers.l2_sp import pull_to_start

    needs = {'source', 'maps'} | ({'attention'} if attention != 'none' else set())
    return Regularizer(
        'delta',
        of_source=True,
        needs=frozenset(needs),
        term=term,
        gradient=lambda loaded: pull_to_start(lambda path: (0.0 if path in loaded else beta, 0.0)),
        options={'attention': attention, 'examples': examples},
    )


def map_distance(
    map_BxPxC: jax.Array,
    source_BxPxC: jax.Array,
    weights_C: jax.Array | None,
    real_BxP: jax.Array | None = None,
) -> jax.Array:
    """Half the squared distance of two feature maps, weighted by channel: C W_j / positions.

    Args:
      map_BxPxC: (B, ..., C); learnt vectors that a prompt put in front of a sequence are left out.
      source_BxPxC: the same shape without these; no gradient goes there.
      weights_C: sums to 1; None is 1 / C each.
      real_BxP: of sequences, 0 at padding; None is 1 each.

    >>> float(map_distance(jnp.ones((2, 5, 3)), jnp.zeros((2, 5, 3)), None))
    1.5
    """
    if map_BxPxC.ndim == 3:
        map_BxPxC = map_BxPxC[:, -source_BxPxC.shape[1] :]
    gap = map_BxPxC.astype(jnp.float32) - lax.stop_gradient(source_BxPxC).astype(jnp.float32)
    channels = gap.shape[-1]
    distance_BxC = averaged(jnp.square(gap), real_BxP)
    weights = jnp.ones(channels) if weights_C is None else channels * weights_C
    return 0.5 * (distance_BxC * weights.reshape(1, channels)).sum(-1).mean()
