"""How much faster transfer learns: slope, time to a threshold, speed-up."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tljax.study.scales import base_note, base_of, no_gain, of_curves
from tljax.study.statistics import (
    Array,
    Measure,
    join,
    least_squares_slope,
    paired,
    seeds_note,
    unmeasured,
)


@of_curves
def slope(
    transfer: Array, scratch: Array, x: Array, *, zero: float | None = 0.0, seed: int = 0
) -> Measure:
    """How much faster transfer rises: difference of least-squares slopes of m over log2(x).

    One window for both arms: from the first evaluation after an update to the first at which the
    mean of scratch reaches 95 % of its final value; at least two evaluations. All of them when
    scratch does not end clearly above `zero`, where noise would choose the window. In units of m
    per doubling of the examples seen.

    >>> slope([[0, 0.4, 0.8, 0.8]] * 2, [[0, 0.2, 0.4, 0.41]] * 2, [0, 64, 128, 256]).mean
    0.2
    """
    n = len(transfer)
    if len(x) < 3:
        return unmeasured(n, 'a slope needs two evaluations after an update')
    log_x = np.log2(x[1:])
    problem = no_gain(scratch[:, -1] - (scratch[:, 0] if zero is None else zero), seed)

    def window_end(means: Array) -> npt.NDArray[np.intp]:
        base = base_of(means, zero)
        gain = means[:, -1] - base
        reached = means >= (base + 0.95 * gain)[:, None]
        first = np.where(gain > 0, reached[:, 1:].argmax(1) + 1, len(x) - 1)
        return np.full(len(means), len(x) - 1) if problem else np.maximum(first, 2)

    def difference(t: Array, s: Array) -> Array:
        ends, result = window_end(s), np.empty(len(s))
        for end in np.unique(ends):
            rows = ends == end
            result[rows] = least_squares_slope((t - s)[rows, 1 : end + 1], log_x[:end])
        return result

    mean, low, high = paired(difference, [transfer, scratch], seed)
    end = int(window_end(scratch.mean(0)[None])[0])
    higher_start = transfer[:, 1].mean() > scratch[:, 1].mean()
    note = join(
        f'from {x[1]:g} to {x[end]:g} examples, {end} evaluations',
        f'all of them, as scratch ends {problem}' if problem else '',
        'transfer is ahead when the window opens, so has less left to gain'
        if mean < 0 and higher_start
        else '',
    )
    return Measure(mean, low, high, n, join(note, seeds_note(n)))


def first_reach(curves: npt.ArrayLike, threshold: npt.ArrayLike, x: npt.ArrayLike) -> Array:
    """When each curve first reaches its threshold: time to threshold, in target examples.

    Straight lines between evaluations, as in the picture of the curves: taking the evaluation at
    which it is first seen instead would be late by up to one interval. Reached is reached, even if
    the curve falls below again: one could have stopped there.

    Args:
      curves: (rows, K).
      threshold: (rows,).
      x: (K,).

    Returns:
      (rows,) in units of x: x[0] if it starts there, infinity if it never gets there.

    >>> first_reach([[0.0, 1.0, 0.5], [0.0, 0.1, 0.2]], [0.25, 0.25], [0, 64, 128]).tolist()
    [16.0, inf]
    """
    curves, threshold, x = (np.asarray(a, np.float64) for a in (curves, threshold, x))
    reached = curves >= threshold[:, None]
    first = reached.argmax(1)
    rows, before = np.arange(len(curves)), np.maximum(first - 1, 0)
    below, above = curves[rows, before], curves[rows, first]
    rise = np.where(above > below, above - below, 1.0)
    share = np.where(first > 0, (threshold - below) / rise, 0.0)
    times = x[before] + share * (x[first] - x[before])
    return np.where(reached.any(1), times, np.inf)


@of_curves
def speedup(
    transfer: Array,
    scratch: Array,
    x: Array,
    fraction: float,
    *,
    zero: float | None = 0.0,
    seed: int = 0,
) -> Measure:
    """How many times fewer examples transfer needs: t_S(th) / t_T(th), th a share of S's final m.

    Taylor and Stone 2009 (time to threshold). th = zero + fraction (mean final of
    scratch - zero); times are those of `first_reach` on the mean curves. Times can be resolved only
    between the first evaluation after an update and the last, and are bounded by these: an arm
    that never reaches th counts as x[-1], one that is there sooner than x[1], or from the start
    (time 0, where the ratio would be infinite), as x[1]. The note says where a bound was used and
    which way the truth lies, and in how many single seeds each arm misses th.

    >>> speedup([[0, 0.4, 0.8]] * 5, [[0, 0.2, 0.4]] * 5, [0, 64, 128], 0.95).note
    'threshold 0.38: transfer < 64, scratch 122 examples, so at least this; the high end...'
    """
    n = len(transfer)
    if len(x) < 2:
        return unmeasured(n, 'one evaluation: no time to a threshold')
    problem = no_gain(scratch[:, -1] - (scratch[:, 0] if zero is None else zero), seed)
    if problem:
        return unmeasured(n, f'scratch ends {problem}, so a share of its final is no threshold')

    def times(t: Array, s: Array) -> tuple[Array, Array, Array]:
        base = base_of(s, zero)
        threshold = base + fraction * (s[:, -1] - base)
        return first_reach(t, threshold, x), first_reach(s, threshold, x), threshold

    def ratio(t: Array, s: Array) -> Array:
        time_t, time_s, _ = times(t, s)
        return np.clip(time_s, x[1], x[-1]) / np.clip(time_t, x[1], x[-1])

    mean, low, high = paired(ratio, [transfer, scratch], seed)
    time_t, time_s, threshold = times(transfer.mean(0)[None], scratch.mean(0)[None])
    note = join(
        f'threshold {threshold[0]:.3g}: transfer {_when(time_t[0], x)}, scratch '
        f'{_when(time_s[0], x)} examples{_truth_lies(time_t[0], time_s[0], x)}',
        _missed('transfer', transfer, threshold[0], x),
        _missed('scratch', scratch, threshold[0], x),
        _open_ends(times, transfer, scratch, x, seed),
        base_note(zero),
    )
    return Measure(mean, low, high, n, join(note, seeds_note(n)))


def _when(time: float, x: Array) -> str:
    if time > x[-1]:
        return f'> {x[-1]:g}'
    return f'< {x[1]:g}' if time < x[1] else f'{time:.0f}'


def _truth_lies(time_t: float, time_s: float, x: Array) -> str:
    """On which side of the bounded ratio the true one lies; '' if no bound was used."""
    if time_t < x[1] and time_s < x[1]:
        return ': both sooner than can be told apart'
    if time_t > x[-1] or time_s < x[1]:
        return ', so at most this'
    return ', so at least this' if time_t < x[1] else ''


def _missed(arm: str, curves: Array, threshold: float, x: Array) -> str:
    never = np.isinf(first_reach(curves, np.full(len(curves), threshold), x)).sum()
    return f'{arm} > {x[-1]:g} examples in {never} of {len(curves)} seeds' if never else ''


def _open_ends(times: Callable, transfer: Array, scratch: Array, x: Array, seed: int) -> str:
    """Names the ends of the interval that rest on a bound: over 2.5 % of the resamples used it."""
    arms = [transfer, scratch]

    def lower(t: Array, s: Array) -> Array:
        time_t, time_s, _ = times(t, s)
        return ((time_t > x[-1]) | (time_s < x[1])).astype(float)

    def higher(t: Array, s: Array) -> Array:
        return (times(t, s)[0] < x[1]).astype(float)

    # The upper end of an indicator's interval is above 0 just when it is on in over 2.5 %.
    return join(
        'the low end may lie lower' if paired(lower, arms, seed)[2] else '',
        'the high end may lie higher' if paired(higher, arms, seed)[2] else '',
    )
