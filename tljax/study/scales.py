"""Scales of curves: the rescaled metric m, what shares of it are counted from, shape checks."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tljax.errors import UserError
from tljax.study.statistics import Array, Measure, interval, unmeasured


def rescale(
    metric: npt.ArrayLike,
    chance: float | None,
    ceiling: float | None,
    higher_is_better: bool = True,
) -> Array:
    """The metric as m: 0 at chance and 1 at the ceiling where both exist, else turned upwards.

    Args:
      metric: any shape, in the metric's unit.
      chance: what guessing scores, or None.
      ceiling: the best possible score (0 for an error rate), or None.
      higher_is_better: the metric's direction.

    Returns:
      (metric - chance) / (ceiling - chance), or +-metric; the same shape, higher is better.

    Raises:
      UserError: the ceiling is no better than chance.

    >>> rescale([0.25, 0.625, 1.0], chance=0.25, ceiling=1.0).tolist()
    [0.0, 0.5, 1.0]
    >>> rescale([2.5], chance=None, ceiling=0.0, higher_is_better=False).tolist()
    [-2.5]
    """
    metric = np.asarray(metric, np.float64)
    sign = 1 if higher_is_better else -1
    if chance is None or ceiling is None:
        return sign * metric
    if not sign * (ceiling - chance) > 0:
        raise UserError(
            f"The task's ceiling ({ceiling:g}) is no better than its chance level ({chance:g}), so "
            'there is nothing to learn and nothing to measure. With classification this happens '
            'when data.classes leaves a single class: keep at least two.'
        )
    return (metric - chance) / (ceiling - chance)


def zero_level(
    chance: float | None, ceiling: float | None, higher_is_better: bool = True
) -> float | None:
    """Where m counts from: 0 when rescaled, chance where only that exists, None where nothing does.

    >>> zero_level(0.1, 1.0), zero_level(2.3, None, False), zero_level(None, 0.0, False)
    (0.0, -2.3, None)
    """
    if chance is None:
        return None
    if ceiling is not None:
        return 0.0
    return chance if higher_is_better else -chance


def of_curves(measure: Callable[..., Measure]) -> Callable[..., Measure]:
    """Checks the shapes, and answers for curves with holes, before `measure` sees them."""

    @functools.wraps(measure)
    def checked(
        transfer: npt.ArrayLike, scratch: npt.ArrayLike, x: npt.ArrayLike, *args, **keywords
    ) -> Measure:
        transfer, scratch, x = (np.asarray(a, np.float64) for a in (transfer, scratch, x))
        if x.ndim != 1 or not transfer.shape == scratch.shape == (len(transfer), len(x)):
            raise ValueError(
                'Both arms need shape (seeds, evaluations) with one x per evaluation, not '
                f'transfer {transfer.shape}, scratch {scratch.shape}, x {x.shape}.'
            )
        if not len(x) or x[0] != 0 or not (np.diff(x) > 0).all():
            raise ValueError(f'x has to start at 0 and to increase, not {x}.')
        if not len(transfer):
            return unmeasured(0, 'no seeds')
        bad = int((~(np.isfinite(transfer) & np.isfinite(scratch))).any(1).sum())
        if bad:
            return unmeasured(len(transfer), f'not finite in {bad} of {len(transfer)} seeds')
        return measure(transfer, scratch, x, *args, **keywords)

    return checked


def base_of(scratch: Array, zero: float | None) -> Array:
    """(resamples,): what shares of scratch's final are counted from."""
    return scratch[:, 0] if zero is None else np.full(len(scratch), zero)


def base_note(zero: float | None) -> str:
    return '' if zero is not None else 'counted from the start of scratch: no chance level known'


def no_gain(gains: Array, seed: int) -> str:
    """Says so when the mean of `gains` (S,) can't be told from 0 or less; '' when it is above.

    A ratio whose denominator may be 0 has no bounded interval (Fieller 1954, Some Problems in
    Interval Estimation), so none is given.
    """
    gain = interval(gains, seed)
    lowest = gain.mean if gain.low is None else gain.low
    if lowest is not None and lowest > 1e-9:  # 0 but for rounding is 0
        return ''
    shown = '' if gain.low is None else f' [{gain.low:.3g}, {gain.high:.3g}]'
    return f'not clearly above where it counts from ({gain.mean:.3g}{shown})'
