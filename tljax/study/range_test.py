"""The learning-rate range test: one short run whose learning rate goes up and up."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tljax import mesh as mesh_lib
from tljax.study.runs import Arm
from tljax.train import experiment as experiment_lib
from tljax.train import programs
from tljax.train import step as step_lib
from tljax.train.prefixed import PhaseRunner
from tljax.train.state import own_buffers

LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.8  # of the loss, over steps
BEGUN = 0.1  # share of the whole fall of the loss at which learning has begun
BELOW = 3.0  # where the loss is lowest it is about to grow: a peak is so many times lower
APART = 30.0  # the bounds are at least so many times apart
FLAT = 5  # one step in so many, the first ones, moves too little to change the loss


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test showed.

    Attributes:
      lrs: of each step, growing by a ratio.
      losses: on the batch of each step, smoothed; as far as they are finite.
      low, high: the learning rates between which it is worth searching.
      note: where they come from.
    """

    lrs: list[float]
    losses: list[float]
    low: float
    high: float
    note: str


def learning_rates(steps: int) -> np.ndarray:
    """The learning rate of each step, (steps,)."""
    return np.geomspace(LOWEST, HIGHEST, steps)


def measure(arm: Arm, seed: int, steps: int, tick: Callable[[int], None]) -> list[float]:
    """Runs the test on an arm's last phase, which trains what the policy trains at its end.

    Args:
      arm: the policy's.
      seed: of the run.
      steps: of the run.
      tick: called with the number of steps just taken.

    Returns:
      The loss on the batch of each step, before its update; see `read`.
    """
    experiment = arm.experiment
    program = programs.program(experiment, experiment.phases[-1])
    accumulate = experiment.config.train.accumulate

    def make_step(loss_of: step_lib.LossOf) -> step_lib.Step:
        factor = lambda step: (HIGHEST / LOWEST) ** (step / max(steps - 1, 1))  # noqa: E731
        return step_lib.make_train_step(loss_of, program.tx, factor, accumulate=accumulate)

    runner = PhaseRunner(
        experiment, dataclasses.replace(program, make_step=make_step), arm.evaluate
    )
    subset, order = arm.order(seed)
    variables = arm.variables(seed)
    _, train_key = experiment_lib.run_keys(seed)
    state = program.start(variables, LOWEST, train_key)
    state = mesh_lib.put_replicated(arm.mesh, own_buffers(state))
    frozen = program.split(variables['params'])[1]
    ready = runner.ready(frozen, state.batch_stats, arm.pool.of(subset), arm.validation)
    losses: list[Any] = []
    for data, indices in ready.feed.batches(order, 0, steps):
        state, metrics = ready.step(state, ready.fixed, data, indices)
        losses.append(metrics['loss'])
        tick(1)
    return [float(loss) for loss in jax.device_get(losses)]


def read(lrs: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """The bounds that a range test's losses give.

    Smith 2017, "Cyclical learning rates for training neural networks", section 3.3, takes the
    learning rates at which accuracy begins to rise and at which it becomes ragged or falls. Here,
    of the smoothed loss: where a tenth of its whole fall is done, and a third of where it is
    lowest, since a schedule begins at its peak; a thirtieth of that if the two lie closer.

    Args:
      lrs: of each step, ascending.
      losses: on the batch of each step, before its update.

    >>> lrs = np.geomspace(1e-6, 10, 8)
    >>> test = read(lrs, [2.3, 2.3, 2.3, 2.2, 1.5, 0.9, 4.0, float('nan')])
    >>> round(test.low, 6), round(test.high, 6)
    (0.001111, 0.033333)
    """
    values = np.asarray(losses, float)
    bad = np.flatnonzero(~np.isfinite(values))
    values = values[: bad[0]] if len(bad) else values
    smooth = smoothed(values)
    kept = [float(lr) for lr in lrs[: len(smooth)]]
    start = float(np.median(smooth[: -(-len(lrs) // FLAT)])) if len(smooth) else math.nan
    if not len(smooth) or start - smooth.min() <= 1e-3 * abs(start):
        note = 'The loss fell at no learning rate: study.lr_low and study.lr_high are taken.'
        return RangeTest(kept, smooth.tolist(), math.nan, math.nan, note)
    lowest = int(smooth.argmin())
    fallen = start - BEGUN * (start - smooth[lowest])
    begun = next(i for i in range(lowest, -1, -1) if i == 0 or smooth[i - 1] > fallen)
    high = kept[lowest] / BELOW
    low = min(kept[begun], high / APART)
    note = (
        'From where the smoothed loss has done a tenth of its fall, to a third of where it is '
        'lowest; at least a factor of 30.'
    )
    return RangeTest(kept, smooth.tolist(), low, high, note)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Exponential moving average without the bias of its beginning, (steps,).

    >>> smoothed(np.array([1.0, 1.0, 1.0])).round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    average, found = 0.0, []
    for count, value in enumerate(values, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        found.append(average / (1 - SMOOTHING**count))
    return np.array(found)
