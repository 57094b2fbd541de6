"""From a config and a phase's decisions to optax transformations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax import trees

Decisions = Mapping[str, Mapping[str, float] | None]


def direction(optim: Any, decisions: Decisions) -> optax.GradientTransformation:
    """The update's direction for the trainable half; the step multiplies it by -lr(step).

    The learning rate stays outside so that one compiled step serves every learning rate. Clipping
    and the global norm see the trainable leaves only, since the tree they get holds no others.

    Args:
      optim: the section `config.optim`.
      decisions: for each parameter path, None (frozen) or its `lr` and `wd` multipliers; without a
        `wd`, matrices and kernels decay and vectors (biases, scales) do not.
    """
    parts = []
    if optim.clip:
        parts.append(optax.clip_by_global_norm(optim.clip))
    if optim.name == 'adamw':
        parts.append(scale_by_adam())
    elif optim.momentum:
        parts.append(optax.trace(decay=optim.momentum))
    if optim.weight_decay:
        parts += grouped(
            decisions, 'wd', lambda wd: optax.add_decayed_weights(optim.weight_decay * wd)
        )
    parts += grouped(decisions, 'lr', optax.scale)
    return optax.chain(*parts) if parts else optax.identity()


class AdamState(NamedTuple):
    """Steps and moments of each leaf."""

    count: Any
    mu: Any
    nu: Any


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam's direction (Kingma and Ba 2015, algorithm 1), each leaf with a step count of its own.

    optax.scale_by_adam has one count for all: a leaf that becomes trainable in a later phase would
    have the bias correction of an old one, and first steps up to six times too large.

    Args:
      b1: decay of the mean of the gradient.
      b2: decay of the mean of its square.
      eps: added to the root.

    >>> import jax.numpy as jnp
    >>> tx = scale_by_adam()
    >>> tx.update({'w': jnp.array(0.3)}, tx.init({'w': jnp.array(1.0)}))[0]['w'].round(4).item()
    1.0
    """

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jax.tree.map(lambda _: jnp.int32(0), params), zeros, zeros)

    def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        count = jax.tree.map(lambda c: c + 1, state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)

        def direction_of(c: Any, m: Any, v: Any) -> Any:
            steps = c.astype(m.dtype)
            return (m / (1 - b1**steps)) / (jnp.sqrt(v / (1 - b2**steps)) + eps)

        return jax.tree.map(direction_of, count, mu, nu), AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def grouped(decisions: Decisions, key: str, make) -> list[optax.GradientTransformation]:
    """One masked transformation for each distinct multiplier other than the neutral one."""
    neutral = {'lr': 1.0, 'wd': 0.0}[key]

    def multiplier(path: str, leaf: Any) -> float:
        value = decisions[path]
        assert value is not None, path
        return float(value.get(key, 1.0 if jnp.ndim(leaf) > 1 else 0.0))

    def mask(value: float):
        # In `whole_tree` the frozen leaves are there as optax.MaskedNode.
        return lambda tree: trees.map_with_path(
            lambda p, leaf: decisions[p] is not None and multiplier(p, leaf) == value, tree
        )

    given = {float(d.get(key, 1.0)) for d in decisions.values() if d is not None}
    return [optax.masked(make(value), mask(value)) for value in sorted(given - {neutral})]


def schedule(optim: Any, steps: int) -> optax.Schedule:
    """The factor on the learning rate at each step of a phase: warm-up, then constant or cosine.

    The cosine ends at 0 (Loshchilov and Hutter 2017, equation 5).

    >>> from tljax.config import default
    >>> [round(float(schedule(default().optim, 100)(step)), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """
    warmup = min(optim.warmup_steps, steps)
    if optim.schedule == 'cosine':
        after = optax.cosine_decay_schedule(1.0, max(steps - warmup, 1))
    else:
        after = optax.constant_schedule(1.0)
    if not warmup:
        return after
    # The first step already moves: 1/warmup, not 0.
    rise = optax.linear_schedule(1.0 / warmup, 1.0, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def whole_tree(optim: Any, decisions: Decisions, steps: int) -> optax.GradientTransformation:
    """The same as one optax transformation of the whole tree, for a training loop of one's own.

    Frozen leaves get zero updates and no optimiser state. Gradients of frozen leaves are still
    computed by whoever calls `jax.grad` on the whole tree; the step of `tljax.train` avoids that.

    Args:
      optim: the section `config.optim`.
      decisions: for each parameter path, None (frozen) or its `lr` and `wd` multipliers.
      steps: length of the schedule.
    """

    def labels(tree: trees.Tree) -> trees.Tree:
        return trees.map_with_path(
            lambda path, leaf: 'frozen' if decisions[path] is None else 'trained', tree
        )

    # optax.partition shows the inner transformation the other leaves as MaskedNode, which has no
    # leaves: the norm that clipping sees is that of the trainable half here too.
    trained = optax.chain(
        direction(optim, decisions),
        optax.scale_by_learning_rate(lambda step: optim.lr * schedule(optim, steps)(step)),
    )
    return optax.partition({'trained': trained, 'frozen': optax.set_to_zero()}, labels)
