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
    """

    trainable: trees.Tree
    batch_stats: trees.Tree
    opt_state: Any
    step: jax.Array
    lr: jax.Array
    key: jax.Array
    bad_step: jax.Array


def create(
    trainable: trees.Tree,
    batch_stats: trees.Tree,
    tx: optax.GradientTransformation,
    lr: jax.typing.ArrayLike,
    key: jax.Array,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        trainable=trainable,
        batch_stats=batch_stats,
        opt_state=tx.init(trainable),
        step=jnp.int32(0),
        lr=jnp.asarray(lr, jnp.float32),
        key=key,
        bad_step=jnp.int32(-1),
    )


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
