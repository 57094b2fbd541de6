"""What changes from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tljax import trees


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes, but for the frozen parameters.

    Attributes:
      trainable: parameters, with None where a leaf is frozen.
      batch_stats: batch statistics of the whole model.
      opt_state: optax's, over the trainable leaves only.
      step: steps taken, int32.
      lr: peak learning rate, float32; not compiled in, so that one program serves all.
      key: typed random key; each step folds its number into it.
      bad_step: the first step whose loss or gradient was not finite, or -1. From then on nothing
        moves, so that the last good parameters are still there.
      ema: None, or the moving averages that are evaluated and saved: `params` (of the trainable
        leaves) and `batch_stats`.
    """

    trainable: trees.Tree
    batch_stats: trees.Tree
    opt_state: Any
    step: jax.Array
    lr: jax.Array
    key: jax.Array
    bad_step: jax.Array
    ema: dict[str, trees.Tree] | None = None


def create(
    trainable: trees.Tree,
    batch_stats: trees.Tree,
    tx: optax.GradientTransformation,
    lr: jax.typing.ArrayLike,
    key: jax.Array,
    ema: bool = False,
) -> TrainState:
    """The state before the first step; `ema` is whether moving averages are kept."""
    return TrainState(
        trainable=trainable,
        batch_stats=batch_stats,
        opt_state=tx.init(trainable),
        step=jnp.int32(0),
        lr=jnp.asarray(lr, jnp.float32),
        key=key,
        bad_step=jnp.int32(-1),
        ema={'params': trainable, 'batch_stats': batch_stats} if ema else None,
    )


def served(state: TrainState) -> tuple[trees.Tree, trees.Tree]:
    """The trainable half and the batch statistics that are evaluated and saved.

    The moving averages where they are kept. A leaf that a later phase froze, statistics among them,
    is as it was frozen, which is what its average would go to.
    """
    if state.ema is None:
        return state.trainable, state.batch_stats
    return state.ema['params'], state.ema['batch_stats']


def averaged(old: Any, new: Any, decay: float, step: jax.Array) -> Any:
    """Exponential moving averages of leaves after one more step (Polyak and Juditsky 1992).

    The decay begins low, min(decay, (1 + step) / (10 + step)), as in
    tf.train.ExponentialMovingAverage: otherwise a short run would end near where it began. What
    doesn't change stays equal to its average bit for bit.

    Args:
      old: tree of averages, or None where none are kept.
      new: tree of the values after the step.
      decay: from 0 to 1.
      step: number of steps before this one.

    >>> averaged({'w': jnp.array(1.0)}, {'w': jnp.array(3.0)}, 0.5, jnp.int32(90))['w'].item()
    2.0
    """
    if old is None:
        return None
    slow = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: a + ((1 - slow) * (b - a)).astype(a.dtype), old, new)


def carry_over(old: Any, new: Any) -> Any:
    """The new optimiser state, with the old one's value wherever both have the same leaf.

    So a leaf that stays trainable at a phase's end keeps its moments, and one that becomes
    trainable starts fresh.
    """
    kept = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)
    }
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: kept.get(jax.tree_util.keystr(path), leaf), new
    )


def own_buffers(state: TrainState) -> TrainState:
    """A copy, for a step that takes its buffers over: leaves made alike may share theirs."""
    return jax.tree.map(jnp.copy, state)


def to_checkpoint(state: TrainState, params: trees.Tree) -> dict[str, Any]:
    """The recombined tree that a checkpoint holds; the same format for frozen and full runs."""
    moments = jax.tree_util.tree_leaves_with_path(state.opt_state)
    return {
        'params': params,
        'batch_stats': state.batch_stats,
        'opt_state': {jax.tree_util.keystr(path): leaf for path, leaf in moments},
        'step': state.step,
        'lr': state.lr,
        'key': jax.random.key_data(state.key),
        'bad_step': state.bad_step,
        **({} if state.ema is None else {'ema': state.ema}),
    }


def from_checkpoint(state: TrainState, tree: Any, trainable: trees.Tree, like: Any) -> TrainState:
    """The state that `to_checkpoint` took apart; `like` is an optimiser state of its structure."""
    opt_state = jax.tree_util.tree_map_with_path(
        lambda path, _: tree['opt_state'][jax.tree_util.keystr(path)], like
    )
    return dataclasses.replace(
        state,
        trainable=trainable,
        batch_stats=tree['batch_stats'],
        opt_state=opt_state,
        step=tree['step'],
        lr=tree['lr'],
        key=jax.random.wrap_key_data(tree['key']),
        bad_step=tree['bad_step'],
        ema=tree.get('ema'),
    )
