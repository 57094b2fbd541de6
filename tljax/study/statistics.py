"""Intervals over few seeds: the bootstrap, the plateau test, and how many seeds would settle it.

What varies between runs is the seed (target subset, head, order of examples), so seeds are what is
resampled; the evaluations of one run hang together and are never treated as independent. Nothing
here puts a NaN or an infinity into a result: such a number becomes None, with a note.

The percentile bootstrap is too narrow when seeds are few: its spread uses n where the variance
needs n - 1, and the normal's tails where Student's are (Hesterberg 2015, What Teachers Should Know
About the Bootstrap, on narrowness bias). For normal differences a 95 % interval holds the truth in
75 % of studies with 3 seeds, 83 % with 5, 90 % with 10 and 93 % with 20 (a test measures the 90).
Hence ten seeds for a headline, and a note on every interval from fewer than five.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 9999
FEWEST_SEEDS = 5  # below this a study is a smoke test
# Per cent of studies whose interval holds the truth, by seeds. With 2 or 3 the interval runs from
# the smallest to the largest value and misses when all lie on one side: 1 - 2 / 2**n. 4: simulated.
COVERAGE = {2: 50, 3: 75, 4: 80}
PLATEAU_EVALUATIONS = 6  # so that the three evaluations tested are at most half of a curve

Array = npt.NDArray[np.float64]
Statistic = Callable[..., Array]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval; None stands for what could not be measured.

    Attributes:
      mean: the estimate (for ratios the ratio of means), or None.
      low: lower end of the interval, or None.
      high: upper end of the interval, or None.
      n: number of (paired) seeds.
      note: what a reader has to know about these numbers; '' if nothing.

    >>> Measure(float('nan'), None, None, 3).to_json()
    {'mean': None, 'low': None, 'high': None, 'n': 3, 'note': 'not a finite number'}
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ''

    def __post_init__(self) -> None:
        # JSON knows neither NaN nor infinity, so no Measure ever holds one.
        for name in ('mean', 'low', 'high'):
            value = getattr(self, name)
            if value is None:
                continue
            finite = math.isfinite(value)
            object.__setattr__(self, name, float(value) if finite else None)
            if not finite and 'not a finite number' not in self.note:
                object.__setattr__(self, 'note', join(self.note, 'not a finite number'))
        object.__setattr__(self, 'n', int(self.n))

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dumps(..., allow_nan=False)` takes."""
        return dataclasses.asdict(self)


def unmeasured(n: int, note: str) -> Measure:
    """The Measure of what could not be measured, and why.

    >>> unmeasured(0, 'not asked for').mean is None
    True
    """
    return Measure(None, None, None, n, note)


def join(*notes: str) -> str:
    """Notes in one line, empty ones left out.

    >>> join('plateau', '', 'one seed')
    'plateau; one seed'
    """
    return '; '.join(note for note in notes if note)


def seeds_note(n: int) -> str:
    """What the number of seeds means for an interval; '' when there is nothing to say.

    >>> seeds_note(1), seeds_note(10)
    ('one seed: no interval', '')
    """
    if n == 1:
        return 'one seed: no interval'
    if n in COVERAGE:
        return f'only {n} seeds: such intervals hold the truth in about {COVERAGE[n]} % of studies'
    return ''


def interval(values: npt.ArrayLike, seed: int = 0, note: str = '') -> Measure:
    """The mean of one number per seed, with its 95 % percentile bootstrap interval.

    Give it paired differences to compare two arms (Efron and Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 13; Agarwal et al. 2021, section 4). The interval is the one of
    `scipy.stats.bootstrap((values,), np.mean, n_resamples=9999, method='percentile',
    rng=np.random.default_rng(seed))`.

    Args:
      values: (seeds,), in any unit.
      seed: of the resampling.
      note: goes in front of what the function itself has to say.

    Returns:
      Mean, low and high in the unit of `values`. All equal when the seeds agree exactly; low and
      high None for one seed; all None for no seed or for values that are not finite.

    Raises:
      ValueError: `values` has not one dimension.

    >>> interval([0.2, 0.2, 0.2]).high, interval([0.2]).high
    (0.2, None)
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f'interval takes one number per seed, not an array of {values.shape}')
    n = len(values)
    if n == 0:
        return unmeasured(0, join(note, 'no seeds'))
    bad = int((~np.isfinite(values)).sum())
    if bad:
        return unmeasured(n, join(note, f'not finite in {bad} of {n} seeds'))
    if n == 1:
        return Measure(values[0], None, None, 1, join(note, seeds_note(1)))
    if np.ptp(values) == 0:
        # Rounding would otherwise open a sliver of an interval around 0.1 + 0.1 + 0.1.
        same = float(values[0])
        return Measure(same, same, same, n, join(note, 'the same in every seed', seeds_note(n)))
    low, high = percentile_bootstrap(values, np.mean, seed)
    return Measure(values.mean(), low, high, n, join(note, seeds_note(n)))


def percentile_bootstrap(
    data: npt.NDArray[Any], statistic: Statistic, seed: int
) -> tuple[Any, Any]:
    """Ends of the 95 % interval of `statistic(data, axis=-1)`, the last axis being resampled.

    >>> low, high = percentile_bootstrap(np.array([0.0, 1.0]), np.mean, seed=0)
    >>> float(low), float(high)
    (0.0, 1.0)
    """
    from scipy import stats

    result = stats.bootstrap(
        (data,),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, 8_000_000 // data.size),  # 64 MB of resamples at a time
        vectorized=True,
        axis=-1,
        confidence_level=LEVEL,
        method='percentile',
        rng=np.random.default_rng(seed),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def paired(statistic: Statistic, arms: Sequence[Array], seed: int = 0) -> tuple[float, Any, Any]:
    """A statistic of mean curves, with the ends of its 95 % interval over paired seeds.

    Each resample draws seeds with replacement, the same ones for every arm, and recomputes the
    whole statistic (thresholds and windows included) on the means of the curves drawn.

    Args:
      statistic: takes one (resamples, K) array of mean curves per arm; gives (resamples,).
      arms: (seeds, K) arrays, row i of each from the same seed.
      seed: of the resampling.

    Returns:
      The statistic of all seeds, low, high; low and high are None for one seed.

    >>> paired(lambda a, b: a[:, 0] / b[:, 0], [np.array([[4.0]]), np.array([[2.0]])])
    (2.0, None, None)
    """
    n = len(arms[0])

    def resampled(chosen: npt.NDArray[np.int64], axis: int = -1) -> Array:
        # Summed seed by seed, not as a matrix product, whose rounding may differ by column:
        # equal columns and equal arms have to stay exactly equal.
        counts = (chosen[:, :, None] == np.arange(n)).sum(1)
        means = [sum(counts[:, [i]] * arm[i] for i in range(n)) / n for arm in arms]
        return statistic(*means)

    point = float(resampled(np.arange(n)[None])[0])
    if n == 1:
        return point, None, None
    if all((arm == arm[0]).all() for arm in arms):
        return point, point, point
    low, high = percentile_bootstrap(np.arange(n), resampled, seed)
    return point, float(low), float(high)


def least_squares_slope(values: npt.ArrayLike, x: npt.ArrayLike) -> Array:
    """Slope of each row's least-squares line over x.

    Args:
      values: (rows, K).
      x: (K,), at least two of them different.

    Returns:
      (rows,), in units of `values` per unit of x; exactly 0 for a constant row.

    >>> float(least_squares_slope([[1.0, 3.0, 5.0]], [0, 1, 2])[0])
    2.0
    """
    values, x = np.asarray(values, np.float64), np.asarray(x, np.float64)
    centred = x - x.mean()
    return (values - values[:, :1]) @ centred / (centred @ centred)


def plateau(values: npt.ArrayLike, x: npt.ArrayLike, seed: int = 0) -> tuple[bool, Measure]:
    """Whether an arm has stopped changing: its slope over the last fifth is compatible with 0.

    One slope per seed over the last fifth of the evaluations (at least three), then the bootstrap
    interval of their mean: neighbouring evaluations of a run are not independent, so a test within
    one curve would be too sure. Passing says that a change can't be shown, not that there is none.

    Args:
      values: (seeds, K), finite.
      x: (K,) target examples seen, increasing.
      seed: of the resampling.

    Returns:
      Whether the interval holds 0, and the slope in units of `values` per example. Never passed
      with one seed or fewer than six evaluations; the note says so.

    >>> plateau([[0.0, 0.5, 0.8, 0.9, 0.9, 0.9]] * 2, range(6))[0]
    True
    """
    values, x = np.asarray(values, np.float64), np.asarray(x, np.float64)
    n, evaluations = values.shape
    if n < 2:
        return False, unmeasured(n, 'one seed: no plateau test')
    if evaluations < PLATEAU_EVALUATIONS:
        return False, unmeasured(n, f'{evaluations} evaluations: too few for a plateau test')
    last = max(3, math.ceil(evaluations / 5))
    slope = interval(least_squares_slope(values[:, -last:], x[-last:]), seed)
    passed = slope.low is not None and slope.high is not None and slope.low <= 0 <= slope.high
    return passed, slope


def seeds_needed(differences: npt.ArrayLike, margin: float, level: float = LEVEL) -> int | None:
    """The smallest number of seeds whose interval has a half width below `margin`.

    Smallest n with t_{(1+level)/2, n-1} s / sqrt(n) < margin, where s is the standard deviation of
    the paired differences: the sample size that estimates a mean to a given precision (Cochran
    1977, Sampling Techniques, chapter 4, with Student's t, since s is estimated). It supposes
    that mean and spread stay as they are; if they do, the interval ends just short of the margin.

    Args:
      differences: (seeds,), in the unit of `margin`.
      margin: half width to stay below.
      level: of the interval.

    Returns:
      Total number of seeds, at least 2; None if it can't be told: fewer than two seeds, values
      that are not finite, a margin of 0 or less, or more than a million seeds.

    >>> seeds_needed([-0.02, 0.02, -0.01, 0.03], margin=0.02)
    8
    """
    from scipy import stats

    differences = np.asarray(differences, np.float64)
    most = 10**6
    if len(differences) < 2 or not np.isfinite(differences).all() or not margin > 0:
        return None
    spread = differences.std(ddof=1)

    def half_width(n: int) -> float:
        return float(stats.t.ppf((1 + level) / 2, n - 1) * spread / math.sqrt(n))

    if half_width(most) >= margin:
        return None
    low, high = 1, most  # low is too few, high is enough; the half width falls with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(middle) < margin else (middle, high)
    return high
