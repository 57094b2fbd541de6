"""L2-SP: the source as the starting point that the parameters are drawn back to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax import trees
from tljax.transfer.regularizers.base import Regularizer, number


class StartState(NamedTuple):
    """The parameters before their first update."""

    start: Any


def restarted(opt_state: Any, loaded: Mapping[str, Any]) -> Any:
    """An optimiser state at the beginning of a phase, its starts those of the whole run.

    A leaf that no phase has frozen before has its start already; one that was trained, then frozen
    and is trained again would start where it has got to.

    Args:
      opt_state: with or without a `StartState` in it.
      loaded: path -> array, what the run began with of its source.
    """

    def of_run(node: Any) -> Any:
        if not isinstance(node, StartState):
            return node
        return StartState(
            trees.map_with_path(
                lambda path, leaf: jnp.asarray(loaded.get(path, leaf), leaf.dtype), node.start
            )
        )

    return jax.tree.map(of_run, opt_state, is_leaf=lambda node: isinstance(node, StartState))


def l2_sp(*, alpha: float = 0.1, beta: float = 0.01) -> Regularizer:
    """alpha / 2 |w - w0|^2 over loaded leaves, beta / 2 |w|^2 over new ones.

    L2-SP (Li, Grandvalet and Davoine 2018, section 3.2), with the paper's usual strengths. It is a
    gradient of the loss, so momentum and Adam's scaling see it, and clipping too; weight decay
    (`optim.weight_decay`) is a pull of its own towards 0, which one leaves off here.

    Args:
      alpha: towards the source.
      beta: towards 0.
    """
    alpha, beta = number('l2_sp', 'alpha', alpha, least=0), number('l2_sp', 'beta', beta, least=0)

    def gradient(loaded: frozenset[str]) -> optax.GradientTransformation:
        return pull_to_start(lambda path: (alpha, 1.0) if path in loaded else (beta, 0.0))

    return Regularizer('l2_sp', of_source=True, gradient=gradient)


def pull_to_start(strength: Any) -> optax.GradientTransformation:
    """Adds strength * (w - share * w0) to each leaf's gradient, w0 being its first value.

    Args:
      strength: path -> (strength, share of the first value: 1 or 0).

    >>> tx = pull_to_start(lambda path: (0.5, 1.0))
    >>> start = {'w': jnp.array(1.0)}
    >>> updates, _ = tx.update({'w': jnp.array(0.0)}, tx.init(start), {'w': jnp.array(3.0)})
    >>> float(updates['w'])
    1.0
    """

    def init(params: trees.Tree) -> StartState:
        # Nothing is kept for leaves that are drawn to 0.
        return StartState(
            trees.map_with_path(lambda path, p: p if strength(path)[1] else None, params)
        )

    def update(grads: Any, state: StartState, params: Any = None) -> tuple[Any, StartState]:
        if params is None:
            raise ValueError('pull_to_start needs the params, to draw them back')
        flat, start = trees.flatten(params), trees.flatten(state.start)

        def pulled(path: str, grad: jax.Array) -> jax.Array:
            gap = flat[path] - start[path] if path in start else flat[path]
            return grad + jnp.asarray(strength(path)[0] * gap, grad.dtype)

        return trees.map_with_path(pulled, grads), state

    return optax.GradientTransformation(init, update)
