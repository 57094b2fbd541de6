"""StochNorm: moving and batch statistics, channel by channel."""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.transfer.regularizers.base import Regularizer, number


def stoch_norm(*, p: float = 0.5) -> Regularizer:
    """Each channel of a batch normalisation takes the batch's statistics with probability p.

    Stochastic normalisation (Kou et al. 2020, section 3.2): otherwise it takes the moving ones, as
    they are before this step. They move as usual; frozen normalisations, and evaluation, are as
    without it.

    Args:
      p: 1 is plain batch normalisation, 0 that of evaluation.
    """
    p = number('stoch_norm', 'p', p, least=0, most=1)

    def norm(call: Any, x: jax.Array, *args: Any, key: jax.Array, **kwargs: Any) -> jax.Array:
        # In this order: the second call moves the statistics that the first one reads.
        moving = call(x, *args, **{**kwargs, 'use_running_average': True})
        batch = call(x, *args, **kwargs)
        chosen_C = jax.random.bernoulli(key, p, x.shape[-1:])
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        return jnp.where(chosen_C.reshape(shape), batch, moving)

    return Regularizer('stoch_norm', of_source=True, needs=frozenset({'batch_norm'}), norm=norm)
