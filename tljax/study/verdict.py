"""The verdict on a comparison, from the interval of the gap at the end."""

import dataclasses

import numpy as np
import numpy.typing as npt

from tljax.errors import UserError
from tljax.study.statistics import FEWEST_SEEDS, Measure, seeds_needed

# Differences of scores such as 0.83 - 0.82 are off by about 1e-17; no study resolves 1e-9.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether transfer helped.

    Attributes:
      name: 'helpful', 'harmful', 'equivalent' or 'undecided'.
      sentence: what was found, with its numbers; for an undecided one what would settle it.
      more_seeds: how many more seeds would settle it; None if decided, or if it can't be told.
    """

    name: str
    sentence: str
    more_seeds: int | None = None


def verdict(gap: Measure, differences: npt.ArrayLike, delta: float, unit: str = '') -> Verdict:
    """Reads the 95 % interval of err_T - err_S against 0 and against +-delta.

    Harmful if all of it is above 0, helpful if all is below, in this order of precedence (an
    interval can lie on one side of 0 and within +-delta: the sentence then says how small it is);
    equivalent if all of it is within +-delta, ends included (two one-sided tests at 2.5 %,
    Schuirmann 1987); else undecided.

    Fewer than five seeds are always undecided.

    Undecided comes with the number of seeds that would settle it. An interval around the mean d
    with half width h names a winner once h < |d|, and equivalence once h <= delta - |d|, so the
    half width to get below is max(|d|, delta - |d|), the easier of the two: at least delta / 2,
    so that seeds can always settle it. The number is `seeds_needed` for it, at least five in all.

    Args:
      gap: mean err_T - err_S with its interval (`negative_transfer_gap`).
      differences: (S,) err_T - err_S of each seed, from which the gap was made.
      delta: how large a gap counts as none, in the unit of `gap` (config.study.delta).
      unit: follows the numbers in the sentence, such as 'm' or 'accuracy'.

    Raises:
      UserError: delta is negative or not a number.

    >>> verdict(Measure(-0.03, -0.05, -0.01, 10), [-0.03] * 10, delta=0.01).name
    'helpful'
    >>> verdict(Measure(0.0, -0.004, 0.004, 10), [0.0] * 10, delta=0.01).name
    'equivalent'
    """
    if not delta >= 0:
        raise UserError(
            f'study.delta is {delta}: give the gap at the end that counts as none, 0 or more, such '
            'as 0.01 for one point.'
        )
    unit = f' {unit}' if unit else ''
    if gap.low is None or gap.high is None or gap.mean is None:
        return _no_interval(gap, unit)
    found = f'(95 % interval {_range(gap.low, gap.high, unit)}, {gap.n} paired seeds)'
    if gap.n < FEWEST_SEEDS:
        return _too_few(gap, unit, found)
    within = gap.low >= -delta - ROUNDING and gap.high <= delta + ROUNDING
    small = f', though by less than the {delta:g}{unit} that counts as equal' if within else ''
    if gap.low > ROUNDING or gap.high < -ROUNDING:
        name, side = ('harmful', 'worse') if gap.low > 0 else ('helpful', 'better')
        sentence = f'Transfer ends {side} than scratch by {_size(gap.mean)}{unit} {found}{small}.'
        return Verdict(name, sentence)
    if within:
        return Verdict(
            'equivalent',
            f'Transfer and scratch end equal to within {delta:g}{unit} {found}.',
        )
    return _undecided(gap, np.asarray(differences, np.float64), delta, found)


def _undecided(gap: Measure, differences: np.ndarray, delta: float, found: str) -> Verdict:
    distance = abs(gap.mean or 0.0)
    needed = seeds_needed(differences, max(distance, delta - distance))
    # The bootstrap's interval can be wider than Student's when one seed stands apart.
    more = None if needed is None else max(needed, FEWEST_SEEDS, gap.n + 1) - gap.n
    settle = (
        'No number of seeds can be named that would settle it.'
        if more is None
        else f'About {more:,} more seed{"s" * (more > 1)} would settle it, if the gap and its '
        'spread stay as they are.'
    )
    return Verdict(
        'undecided', f'Whether transfer or scratch ends better is open {found}. {settle}', more
    )


def _too_few(gap: Measure, unit: str, found: str) -> Verdict:
    """The interval of so few seeds is too narrow to be read: `seeds_note` says how much so."""
    more = FEWEST_SEEDS - gap.n
    side = 'worse' if (gap.mean or 0) > 0 else 'better'
    what = f'ends {side} by {_size(gap.mean)}{unit}' if gap.mean else 'ends equal'
    return Verdict(
        'undecided',
        f'Transfer {what} {found}, but so few seeds are a smoke test: at least {more} more are '
        'needed for a verdict.',
        more,
    )


def _no_interval(gap: Measure, unit: str) -> Verdict:
    if gap.mean is None:
        reason = f' ({gap.note})' if gap.note else ''
        return Verdict('undecided', f'The gap at the end could not be measured{reason}.')
    more = max(FEWEST_SEEDS - gap.n, 1)
    side = 'worse' if gap.mean > 0 else 'better'
    what = f'ends {side} by {_size(gap.mean)}{unit}' if gap.mean else 'ends equal'
    return Verdict(
        'undecided',
        f'Transfer {what}, but a single seed shows nothing: at least {more} more '
        'are needed to tell.',
        more,
    )


def _size(value: float) -> str:
    return f'{abs(value):.3g}'


def _range(low: float, high: float, unit: str) -> str:
    """An interval of err_T - err_S in words.

    >>> _range(-0.02, 0.005, ' m'), _range(-0.02, -0.01, '')
    ('0.02 m better to 0.005 m worse', '0.01 to 0.02 better')
    """
    if low == high == 0:
        return 'of no difference at all'
    if low >= 0 or high <= 0:
        near, far = sorted((abs(low), abs(high)))
        return f'{_size(near)} to {_size(far)}{unit} {"worse" if low >= 0 else "better"}'
    return f'{_size(low)}{unit} better to {_size(high)}{unit} worse'
