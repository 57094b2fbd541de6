"""What runs that are mapped over do in a phase, on examples or on features kept of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tljax.data import eval_batches
from tljax.study.runs import Arm, shown_of
from tljax.train import step as step_lib
from tljax.train.feed import Feed


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all runs of a phase do.

    Attributes:
      step: `step(state, fixed, batch) -> state`, of one run.
      evaluate: `evaluate(state, fixed, valid) -> sums` over validation, of one run.
      fixed: what they read and never write.
      axis: that of runs in `fixed`, or in its parts; None if they share it.
      data: training examples or features.
      valid: those of validation.
      rows: row of each example in `data`; None where it is the example's number.
      seconds: that went into features.
    """

    step: Callable[..., Any]
    evaluate: Callable[..., Any]
    fixed: Any
    axis: Any
    data: Any
    valid: Any
    rows: np.ndarray | None
    seconds: float


def plain(arm: Arm, index: int, frozen: Any) -> Plan:
    """A phase's own step, on examples.

    Args:
      arm: with its data on the device.
      index: of the phase.
      frozen: the frozen half; one copy where `arm.shared(index)`, otherwise one a run.
    """
    program, over_validation = arm.programs[index], evaluation(arm, arm.validation)

    def step(state, fixed, batch):
        return program.step(state, fixed, batch)[0]

    def evaluate(state, fixed, valid):
        return over_validation(*shown_of(state, fixed['frozen']), valid)

    axis = {'frozen': None if arm.shared(index) else 0, 'reference': None}
    fixed = program.fixed(frozen, arm.runners[index].reference(arm.pool))
    resident = arm.pool.resident, arm.validation.resident
    return Plan(step, evaluate, fixed, axis, *resident, None, 0.0)


def prefixed(arm: Arm, index: int, state: Any, frozen: Any, chosen: np.ndarray) -> Plan | None:
    """What is left of it behind a frozen prefix that all runs share, on features.

    Args:
      arm: with its data on the device.
      index: of the phase.
      state: of all runs.
      frozen: the frozen half.
      chosen: every example that a run trains on, in order.

    Returns:
      None where runs share no prefix, where it does not pay, or does not fit the device.
    """
    runner = arm.runners[index]
    if not arm.shared(index) or not runner.decide(len(chosen)).worth:
        return None
    stats = jax.tree.map(lambda leaf: leaf[0], state.batch_stats)
    ready = runner.ready(frozen, stats, arm.pool.of(chosen), arm.validation, shared=True)
    if ready.feed.resident is None or ready.validation.resident is None:
        return None
    assert runner.kept is not None
    behind, count, size = runner.kept.step, len(arm.validation.subset), arm.validation.eval_batch
    cut = runner.evaluation(size)

    def step(state, fixed, batch):
        return behind(state, fixed[0], batch)[0]

    def evaluate(state, fixed, valid):
        def sums(batch):
            return runner.sums(cut, fixed[1], state.trainable, state.batch_stats, batch)

        return over_batches(size, count, sums)(valid)

    rows = np.full(len(arm.pool.subset), -1, np.int32)
    rows[chosen] = np.arange(len(chosen), dtype=np.int32)
    fixed = (ready.fixed, ready.eval_fixed)
    resident = ready.feed.resident, ready.validation.resident
    return Plan(step, evaluate, fixed, None, *resident, rows, ready.feed.seconds)


def evaluation(arm: Arm, feed: Feed):
    """`evaluate(params, batch_stats, data) -> sums` over a whole resident feed, batch by batch."""
    evaluate = step_lib.make_eval_step(
        arm.experiment.model, arm.experiment.task, arm.experiment.prepare
    )

    def run(params, batch_stats, data):
        def sums(batch):
            return evaluate(params, batch_stats, batch)

        return over_batches(feed.eval_batch, len(feed.subset), sums, feed.subset)(data)

    return run


def over_batches(size: int, count: int, sums: Callable, subset: np.ndarray | None = None):
    """`run(data) -> sums` over `count` examples, in the batches in which a feed evaluates.

    Args:
      size: of a batch.
      count: of examples.
      sums: `sums(batch) -> sums`; the batch has `weight`.
      subset: which examples; None is the first `count`.
    """
    subset = np.arange(count, dtype=np.int32) if subset is None else subset
    batches = [(subset[where], weight) for where, weight in eval_batches(count, size)]

    def run(data):
        parts = [sums({**step_lib.gather(data, where), 'weight': w}) for where, w in batches]
        return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)

    return run
