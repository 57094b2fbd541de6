"""What a candidate's curves say: how good it is at the end, and whether it overfitted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.study.watched import Curves
from tljax.tasks import Task

RISE = 0.1  # share of the fall of the validation loss that it may lose again
WORDS = ('sound', 'overfitted', 'overconfident', 'unstable', 'diverged')


def score(curves: Sequence[Curves], task: Task, patience: bool) -> tuple[float, ...]:
    """What candidates are ranked by, higher is better: the metric, and of equals the loss.

    The means over a candidate's seeds of validation at the end, where `train` would leave the
    model; with early stopping at its best. Not finite is the worst.

    Args:
      curves: one a seed.
      task: says which metric, and its direction.
      patience: whether `train` would go back to the best evaluation.
    """
    sign = 1 if task.higher_is_better else -1
    metrics, losses = [], []
    for run in curves:
        place = _place(run, task, patience)
        if place is None:
            return (-math.inf, -math.inf)
        metrics.append(run.validation[task.metric][place])
        losses.append(run.validation.get('loss', run.validation[task.metric])[place])
    # The metric is rounded: sums over examples differ in their last bits between devices.
    metric = float(np.mean(np.array(metrics, float)))
    return round(sign * metric, 6), -float(np.mean(np.array(losses, float)))


def _place(run: Curves, task: Task, patience: bool) -> int | None:
    """Where along its curve a run is judged; None if it isn't sound there."""
    values = run.validation[task.metric]
    finite = [value is not None for value in values]
    if run.bad_step >= 0 or not finite[-1]:
        return None
    if not patience:
        return len(values) - 1
    sign = 1 if task.higher_is_better else -1
    return max(
        (index for index, sound in enumerate(finite) if sound),
        key=lambda index: (sign * float(values[index] or 0.0), -index),
    )


def mean_curve(curves: Sequence[Curves]) -> dict[str, Any]:
    """The mean over seeds, None where one of them is: steps, and train and validation by metric."""

    def mean(column: Sequence[float | None]) -> float | None:
        return None if None in column else float(np.mean(np.array(column, float)))

    def means(kind: str) -> dict[str, list[float | None]]:
        rows = [getattr(run, kind) for run in curves]
        return {
            name: [mean(column) for column in zip(*(row[name] for row in rows), strict=True)]
            for name in rows[0]
        }

    return {'steps': curves[0].steps, 'train': means('train'), 'validation': means('validation')}


def diagnosis(curve: Mapping[str, Any], task: Task, delta: float, bad: bool) -> dict[str, Any]:
    """What a candidate's mean curve says of overfitting.

    overfitted: after its best, validation fell by more than `delta`, its loss did not go on
    falling, and train got no worse.
    overconfident: the metric held, but validation loss lost more than a tenth of its fall while
    train loss went on falling. unstable: validation fell, but train did too, or validation has
    made up for half of it again. diverged: a loss was not finite. sound: none of these.

    Args:
      curve: of `mean_curve`.
      task: says which metric, and its direction.
      delta: a difference in the metric that counts as none.
      bad: whether a run had a non-finite loss or gradient.

    Returns:
      `word`, `sentence`, `gap` (train minus validation at the end, turned so that positive is
      better on train), `fall` (from the best validation to the end, 0 or more), `best_step`.
    """
    metric, sign = task.metric, 1 if task.higher_is_better else -1
    if bad or None in curve['validation'][metric] or None in curve['train'][metric]:
        sentence = 'Its loss or gradient became non-finite.'
        return dict(word='diverged', sentence=sentence, gap=None, fall=None, best_step=None)
    train = sign * np.array(curve['train'][metric])
    valid = sign * np.array(curve['validation'][metric])
    best = int(valid.argmax())
    gap, fall = float(train[-1] - valid[-1]), float(valid[best] - valid[-1])
    step = curve['steps'][best]
    found = dict(gap=gap, fall=fall, best_step=step)
    between = f'train is {amount(gap)} better than validation at the end'
    if fall > delta:
        falls = train[-1] < train[best] - delta
        recovers = valid[-1] - valid[best:].min() > fall
        if falls or recovers:
            sentence = (
                f'After step {step} validation {metric} got {amount(fall)} worse, but '
                f'{"train did too" if falls else "was worse in between"}: the learning rate or too '
                f'few steps rather than overfitting; {between}.'
            )
            return dict(word='unstable', sentence=sentence, **found)
        if loss_fell(curve, best):
            sentence = (
                f'Validation {metric} got {amount(fall)} worse after step {step} while validation '
                f'loss went on falling, which is luck rather than overfitting; {between}.'
            )
            return dict(word='sound', sentence=sentence, **found)
        sentence = (
            f'Validation {metric} was best at step {step} and got {amount(fall)} worse from there, '
            f'while train did not; {between}.'
        )
        return dict(word='overfitted', sentence=sentence, **found)
    rise, at = loss_rise(curve)
    if rise > RISE:
        sentence = (
            f'Validation loss has lost {rise:.0%} of its fall since step {at}, while train loss '
            f'went on falling; {metric} held; {between}.'
        )
        return dict(word='overconfident', sentence=sentence, **found)
    sentence = f'Validation does not get worse by more than {amount(delta)}; {between}.'
    return dict(word='sound', sentence=sentence, **found)


def loss_fell(curve: Mapping[str, Any], since: int) -> bool:
    """Whether validation loss is lower at the end than at an evaluation; False without one."""
    valid = curve['validation'].get('loss')
    return bool(valid) and None not in valid and valid[-1] < valid[since]


def loss_rise(curve: Mapping[str, Any]) -> tuple[float, int]:
    """The share of its fall that validation loss lost again while train loss fell; since when."""
    train, valid = (curve[kind].get('loss') for kind in ('train', 'validation'))
    if not valid or not train or None in valid or None in train:
        return 0.0, 0
    lowest = int(np.argmin(valid))
    fall = valid[0] - valid[lowest]
    if fall <= 0 or train[-1] >= train[lowest]:
        return 0.0, curve['steps'][lowest]
    return (valid[-1] - valid[lowest]) / fall, curve['steps'][lowest]


def amount(value: float) -> str:
    """A difference in a metric.

    >>> amount(0.01234), amount(-0.2)
    ('0.012', '-0.2')
    """
    return f'{value:.3f}'.rstrip('0').rstrip('.') if abs(value) < 10 else f'{value:.3g}'
