"""What transfer changed: start, slope, time to a threshold, end, area, and the gap at the end.

The two arms are transfer and scratch, paired by seed. Shapes: S seeds, K evaluations. `x` (K,) is
target examples seen at each evaluation, x[0] = 0, increasing; `transfer` and `scratch` (S, K) are
the rescaled metric m, higher is better, row i of both from the same seed. Every measure comes as a
`Measure` with a 95 % bootstrap interval over seeds, or as None with a note that says why.

Two choices hold throughout. First, start, end and gap are means of paired differences, while
slope, speed-up and area ratio are computed from the *mean* curves and recomputed, thresholds and
windows included, on each resample of seeds. Speed-up by seed (each seed its own threshold, then
the mean of the logarithms) was tried on simulated curves with known truth: its noisy thresholds
and first passages put its log ratio off by up to 0.5 where transfer ends just below the threshold;
from mean curves it is off by 0.13 at worst, by 0.05 at most elsewhere. Second, 'S's final' and all
shares of it are counted from `zero`: 0 for a rescaled metric, the chance level where only that
exists, else (None) scratch's own mean start, since a share of a bare loss means nothing.
"""

import math

import numpy as np
import numpy.typing as npt

from tljax.study.scales import base_note, base_of, no_gain, of_curves, rescale, zero_level
from tljax.study.speed import first_reach, slope, speedup
from tljax.study.statistics import (
    Array,
    Measure,
    interval,
    join,
    paired,
    plateau,
    seeds_note,
    unmeasured,
)
from tljax.study.verdict import Verdict, verdict

__all__ = (
    'NAMES',
    'Measure',
    'Verdict',
    'area_difference',
    'area_ratio',
    'arm_asymptote',
    'asymptote',
    'final_level',
    'first_reach',
    'gaps',
    'interval',
    'jumpstart',
    'measure_all',
    'negative_transfer_gap',
    'probe_jumpstart',
    'rescale',
    'slope',
    'speedup',
    'verdict',
    'zero_level',
)

NAMES = (
    'jumpstart',
    'probe_jumpstart',
    'slope',
    'speedup_50',
    'speedup_80',
    'speedup_95',
    'asymptote',
    'area_ratio',
    'negative_transfer_gap',
)


@of_curves
def jumpstart(transfer: Array, scratch: Array, x: Array, *, seed: int = 0) -> Measure:
    """How much higher transfer starts: m_T(0) - m_S(0), before the first update.

    Taylor and Stone 2009, Transfer Learning for Reinforcement Learning Domains: A Survey.
    In units of m.

    >>> jumpstart([[0.5, 0.8]] * 2, [[0.25, 0.7]] * 2, [0, 64]).mean
    0.25
    """
    return interval(transfer[:, 0] - scratch[:, 0], seed)


def probe_jumpstart(probe: npt.ArrayLike | None, *, seed: int = 0) -> Measure:
    """How much better a linear probe reads source features than those of a random initialisation.

    Args:
      probe: (S, 2), m of the probe on source features and on random ones; None if not asked for.
      seed: of the resampling.

    >>> probe_jumpstart([[0.75, 0.5], [0.75, 0.5]]).mean
    0.25
    """
    if probe is None:
        return unmeasured(0, 'no linear probe was run')
    probe = np.asarray(probe, np.float64)
    if probe.ndim != 2 or probe.shape[1] != 2:
        raise ValueError(f'probe has to be (seeds, 2), not {probe.shape}.')
    return interval(probe[:, 0] - probe[:, 1], seed)


def final_level(values: Array, x: Array, seed: int = 0) -> tuple[Array, str]:
    """Where each seed of an arm ends, and whether that may be called its asymptote.

    Args:
      values: (S, K).
      x: (K,).
      seed: of the plateau test.

    Returns:
      (S,) and 'plateau': means of the last tenth of the evaluations; or, without a plateau, (S,)
      and 'final at budget': the last evaluation.

    >>> final_level(np.array([[0.0, 0.5], [0.0, 0.5]]), np.array([0.0, 64.0]))[1]
    'final at budget (2 evaluations: too few for a plateau test)'
    """
    passed, change = plateau(values, x, seed)
    if passed:
        return values[:, -math.ceil(len(x) / 10) :].mean(1), 'plateau'
    reason = f' ({change.note})' if change.mean is None else ''
    return values[:, -1], f'final at budget{reason}'


def arm_asymptote(values: npt.ArrayLike, x: npt.ArrayLike, *, seed: int = 0) -> Measure:
    """One arm's end in units of m; the note says 'plateau' or 'final at budget'.

    >>> arm_asymptote([[0.0, 0.5], [0.0, 0.5]], [0, 64]).mean
    0.5
    """
    values, x = np.asarray(values, np.float64), np.asarray(x, np.float64)
    if not np.isfinite(values).all():
        return interval(np.where(np.isfinite(values).all(1), 0.0, np.nan), seed)
    level, label = final_level(values, x, seed)
    return interval(level, seed, note=label)


@of_curves
def asymptote(transfer: Array, scratch: Array, x: Array, *, seed: int = 0) -> Measure:
    """How much higher transfer ends, in units of m; the note says what may be called an asymptote.

    Each arm by its own plateau test (`final_level`), which is not repeated on the resamples.

    >>> asymptote([[0, 0.75]] * 2, [[0, 0.5]] * 2, [0, 64]).mean
    0.25
    """
    level_t, label_t = final_level(transfer, x, seed)
    level_s, label_s = final_level(scratch, x, seed)
    return interval(level_t - level_s, seed, note=f'transfer: {label_t}, scratch: {label_s}')


@of_curves
def area_difference(transfer: Array, scratch: Array, x: Array, *, seed: int = 0) -> Measure:
    """How much higher transfer runs on average over the budget: mean of m_T - m_S over x.

    The area between the curves (trapezoids, linear in x) by the budget, so in units of m.

    >>> area_difference([[0.5, 0.5]] * 2, [[0, 0.5]] * 2, [0, 64]).mean
    0.25
    """
    if len(x) < 2:
        return unmeasured(len(transfer), 'one evaluation: no area')
    return interval(_height(transfer - scratch, x), seed)


def _height(curves: Array, x: Array) -> Array:
    return np.trapezoid(curves, x, axis=-1) / (x[-1] - x[0])


@of_curves
def area_ratio(
    transfer: Array, scratch: Array, x: Array, *, zero: float | None = 0.0, seed: int = 0
) -> Measure:
    """By what share the area under transfer's curve is larger: (area_T - area_S) / area_S.

    Taylor and Stone 2009 (transfer ratio). Areas under m - zero over x, of the mean
    curves: a mean of the seeds' own ratios would be ruled by seeds with small areas. None when
    area_S is not clearly above 0; the note gives the difference in any case.

    >>> area_ratio([[0.5, 0.5]] * 2, [[0, 0.5]] * 2, [0, 64]).mean
    1.0
    """
    n, raw = len(transfer), area_difference(transfer, scratch, x, seed=seed)
    if raw.mean is None:
        return raw
    shown = '' if raw.low is None else f' [{raw.low:.3g}, {raw.high:.3g}]'
    note = join(f'mean of m_T - m_S over x {raw.mean:.3g}{shown}', base_note(zero))
    floor = scratch[:, :1] if zero is None else zero
    problem = no_gain(_height(scratch - floor, x), seed)
    if problem:
        return unmeasured(n, join(f'the area under scratch is {problem}: no ratio', note))

    def ratio(t: Array, s: Array) -> Array:
        # Under 2.5 % of the resamples get here with no area; the bound keeps them at their end.
        area = np.maximum(_height(s - base_of(s, zero)[:, None], x), 1e-12)
        return _height(t - s, x) / area

    mean, low, high = paired(ratio, [transfer, scratch], seed)
    return Measure(mean, low, high, n, join(note, seeds_note(n)))


def gaps(transfer: npt.ArrayLike, scratch: npt.ArrayLike, higher_is_better: bool = True) -> Array:
    """err_T - err_S of each seed (S,), in the metric's own unit: above 0 transfer did worse.

    >>> gaps([0.75], [0.5]).tolist(), gaps([0.75], [0.5], higher_is_better=False).tolist()
    ([-0.25], [0.25])
    """
    transfer, scratch = np.asarray(transfer, np.float64), np.asarray(scratch, np.float64)
    if transfer.ndim != 1 or transfer.shape != scratch.shape:
        raise ValueError(
            f'Both arms need one final metric per seed, not {transfer.shape}, {scratch.shape}.'
        )
    return scratch - transfer if higher_is_better else transfer - scratch


def negative_transfer_gap(
    transfer: npt.ArrayLike,
    scratch: npt.ArrayLike,
    *,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Measure:
    """Mean err_T - err_S at the end: above 0 transfer did harm (Wang et al. 2019, section 3).

    Args:
      transfer: (S,) final metric of each seed on the test split, in the metric's own unit (not
        rescaled, so that `study.delta` is in that unit too).
      scratch: (S,) the same of the other arm.
      higher_is_better: the metric's direction.
      seed: of the resampling.

    >>> negative_transfer_gap([0.75, 0.75], [0.5, 0.5]).mean
    -0.25
    """
    return interval(gaps(transfer, scratch, higher_is_better), seed)


def measure_all(
    transfer: npt.ArrayLike,
    scratch: npt.ArrayLike,
    x: npt.ArrayLike,
    final_transfer: npt.ArrayLike,
    final_scratch: npt.ArrayLike,
    probe: npt.ArrayLike | None = None,
    seed: int = 0,
    *,
    zero: float | None = 0.0,
    higher_is_better: bool = True,
) -> dict[str, Measure]:
    """All measures of a comparison, by the names in `NAMES`.

    Args:
      transfer: (S, K) rescaled metric m of the transfer arm.
      scratch: (S, K) the same of the scratch arm, paired by row.
      x: (K,) target examples seen at each evaluation; x[0] = 0.
      final_transfer: (S,) metric on the test split, in its own unit.
      final_scratch: (S,) the same of the scratch arm.
      probe: (S, 2) m of linear probes on source and on random features, or None.
      seed: of the resampling.
      zero: what shares of a final are counted from: `zero_level` of the task.
      higher_is_better: direction of the finals' metric (m always points up).

    Raises:
      ValueError: shapes that don't belong together, x that doesn't increase from 0.

    >>> arm = [[0.0, 0.5, 0.75, 0.8]] * 2
    >>> measure_all(arm, arm, [0, 64, 128, 256], [0.8, 0.8], [0.8, 0.8])['speedup_80'].mean
    1.0
    """
    curves = (transfer, scratch, x)
    return {
        'jumpstart': jumpstart(*curves, seed=seed),
        'probe_jumpstart': probe_jumpstart(probe, seed=seed),
        'slope': slope(*curves, zero=zero, seed=seed),
        'speedup_50': speedup(*curves, 0.5, zero=zero, seed=seed),
        'speedup_80': speedup(*curves, 0.8, zero=zero, seed=seed),
        'speedup_95': speedup(*curves, 0.95, zero=zero, seed=seed),
        'asymptote': asymptote(*curves, seed=seed),
        'area_ratio': area_ratio(*curves, zero=zero, seed=seed),
        'negative_transfer_gap': negative_transfer_gap(
            final_transfer, final_scratch, higher_is_better=higher_is_better, seed=seed
        ),
    }
