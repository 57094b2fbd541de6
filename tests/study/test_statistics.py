"""Intervals, the plateau test and the number of seeds, against enumeration, numpy and scipy."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from tljax.study import statistics
from tljax.study.statistics import Measure, interval, paired, plateau, seeds_needed

VALUES = np.array([0.02, -0.01, 0.05, 0.03, 0.00, 0.04, 0.01, 0.02, 0.06, -0.02])


def random(seed):
    return np.random.default_rng(seed)


# Measure


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, np.float32('nan')])
@pytest.mark.parametrize('place', ['mean', 'low', 'high'])
def test_a_measure_never_holds_what_json_cannot(place, bad):
    numbers = {'mean': 0.5, 'low': 0.25, 'high': 0.75} | {place: bad}
    measure = Measure(**numbers, n=3, note='seen')
    assert getattr(measure, place) is None
    assert measure.note == 'seen; not a finite number'
    kept = json.loads(json.dumps(measure.to_json(), allow_nan=False))
    assert kept == numbers | {place: None, 'n': 3, 'note': 'seen; not a finite number'}


def test_a_measure_holds_plain_numbers():
    measure = Measure(np.float32(0.5), np.float64(0.25), 1, np.int64(3))
    assert [type(v) for v in measure.to_json().values()] == [float, float, float, int, str]


# interval


def test_interval_matches_the_exact_bootstrap_distribution():
    # All 5**5 resamples of five values, equally likely: no random numbers involved.
    values = VALUES[:5]
    means = [np.mean(chosen) for chosen in itertools.product(values, repeat=5)]
    low, high = np.quantile(means, [0.025, 0.975])
    found = interval(values, seed=1)
    assert found.mean == pytest.approx(0.018)  # (2 - 1 + 5 + 3 + 0) / 5 hundredths
    # 9999 resamples leave an error of about 0.0003 in a quantile of this distribution.
    assert found.low == pytest.approx(low, abs=0.001)
    assert found.high == pytest.approx(high, abs=0.001)
    assert found.n == 5
    assert found.note == ''


def test_interval_of_three_runs_from_the_smallest_to_the_largest():
    # Each of these comes up in 1 / 27 = 3.7 % of resamples, more than the 2.5 % cut off.
    found = interval([0.3, 0.1, 0.7])
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.7))
    assert found.note == 'only 3 seeds: such intervals hold the truth in about 75 % of studies'


def test_interval_is_the_one_its_docstring_promises():
    found = stats.bootstrap(
        (VALUES,),
        np.mean,
        n_resamples=9999,
        method='percentile',
        rng=np.random.default_rng(7),
    ).confidence_interval
    ours = interval(VALUES, seed=7)
    assert (ours.low, ours.high) == (pytest.approx(found.low), pytest.approx(found.high))
    assert ours == interval(VALUES, seed=7)
    assert ours != interval(VALUES, seed=8)


def test_interval_moves_scales_and_turns_with_its_values():
    base, turned = interval(VALUES), interval(-VALUES)
    moved = interval(2 * VALUES + 1)
    assert moved.low == pytest.approx(2 * base.low + 1)
    assert moved.high == pytest.approx(2 * base.high + 1)
    assert (turned.low, turned.high) == (pytest.approx(-base.high), pytest.approx(-base.low))


def test_interval_without_spread_is_a_point():
    # 0.1 + 0.1 + ... / 10 is not 0.1 in floating point; no sliver of an interval may be left.
    found = interval([0.1] * 10)
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)
    assert found.note == 'the same in every seed'


def test_interval_of_one_seed_of_none_and_of_a_hole():
    assert interval([0.4], note='x').to_json() == {
        'mean': 0.4,
        'low': None,
        'high': None,
        'n': 1,
        'note': 'x; one seed: no interval',
    }
    assert interval([]) == Measure(None, None, None, 0, 'no seeds')
    holed = interval([0.4, math.nan, math.inf])
    assert holed == Measure(None, None, None, 3, 'not finite in 2 of 3 seeds')


def test_interval_takes_one_number_per_seed():
    with pytest.raises(ValueError, match=r'not an array of \(2, 2\)'):
        interval([[0.1, 0.2], [0.3, 0.4]])


def covered(n, studies):
    draws = random(n).normal(0.3, 1.0, (studies, n))
    found = [interval(values, seed=i) for i, values in enumerate(draws)]
    return np.mean([m.low <= 0.3 <= m.high for m in found])


def test_coverage_with_ten_seeds_is_what_the_module_says():
    # P(|t_9| < 1.96 sqrt(0.9)) = 0.904; 400 studies give it to within +-0.03 (two standard errors).
    expected = 1 - 2 * stats.t.sf(stats.norm.ppf(0.975) * math.sqrt(0.9), 9)
    assert expected == pytest.approx(0.904, abs=0.001)
    assert covered(10, 400) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(('n', 'percent'), sorted(statistics.COVERAGE.items()))
def test_coverage_with_few_seeds_is_what_the_note_says(n, percent):
    assert 100 * covered(n, 300) == pytest.approx(percent, abs=6)
    assert f'about {percent} %' in statistics.seeds_note(n)


def test_five_seeds_and_more_need_no_note():
    assert [bool(statistics.seeds_note(n)) for n in (1, 2, 3, 4, 5, 10)] == [True] * 4 + [False] * 2


# paired


def ratio(a, b):
    return a[:, -1] / b[:, -1]


def test_paired_recomputes_the_statistic_on_resampled_pairs():
    rng = random(0)
    a, b = rng.uniform(1, 2, (6, 4)), rng.uniform(1, 2, (6, 4))
    chosen = np.random.default_rng(5).integers(0, 6, (9999, 6))
    # One resample after another, the curves of the seeds drawn averaged in plain numpy.
    drawn = [a[i].mean(0)[-1] / b[i].mean(0)[-1] for i in chosen]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert paired(ratio, [a, b], seed=5) == (
        pytest.approx(a[:, -1].mean() / b[:, -1].mean()),
        pytest.approx(low, abs=0.01),
        pytest.approx(high, abs=0.01),
    )


def test_paired_draws_the_same_seeds_for_both_arms():
    # What a seed adds to both arms cancels in their difference; drawn apart it would not.
    rng = random(1)
    shared, own = rng.normal(0, 10, (8, 1)), rng.normal(0, 0.01, (8, 1))
    mean, low, high = paired(lambda a, b: a[:, 0] - b[:, 0], [shared + own, shared])
    assert mean == pytest.approx(own.mean())
    assert 0 < high - low < 0.03


def test_paired_agrees_with_interval_on_a_difference():
    a, b = random(2).normal(size=(2, 7, 1))
    mean, low, high = paired(lambda a, b: a[:, 0] - b[:, 0], [a, b], seed=3)
    direct = interval((a - b)[:, 0], seed=3)
    assert (mean, low, high) == pytest.approx((direct.mean, direct.low, direct.high))


def test_paired_of_equal_seeds_and_of_one_seed():
    row = np.array([[0.1, 0.7]])
    assert paired(ratio, [np.repeat(row, 3, 0), np.repeat(row, 3, 0)]) == (1.0, 1.0, 1.0)
    assert paired(ratio, [row, row]) == (1.0, None, None)
    # Only one arm being the same in every seed leaves an interval.
    _, low, high = paired(ratio, [np.repeat(row, 3, 0), random(0).uniform(1, 2, (3, 2))])
    assert low < high


# slope and plateau


def test_slope_matches_numpy():
    values, x = random(0).normal(size=(3, 6)), np.array([0, 1, 2, 4, 8, 16])
    expected = [np.polyfit(x, row, 1)[0] for row in values]
    np.testing.assert_allclose(statistics.least_squares_slope(values, x), expected)


def test_slope_of_a_constant_is_exactly_zero():
    assert statistics.least_squares_slope([[0.1] * 7], np.log2(np.arange(1, 8)))[0] == 0


X = np.arange(0.0, 30 * 64, 64)  # 30 evaluations: the last fifth is 6


def flat(spread=0.02, seeds=10, seed=0):
    return 0.8 + random(seed).normal(0, spread, (seeds, len(X)))


def test_plateau_passes_on_flat_noise_about_as_often_as_intervals_cover():
    passed = [plateau(flat(seed=i), X)[0] for i in range(100)]
    assert 82 <= sum(passed) <= 98  # 90 % at ten seeds, three standard errors either way


def test_plateau_fails_on_a_rise_in_the_last_fifth_only():
    rising, earlier = flat(0.002), flat(0.002)
    rising[:, -6:] += 0.004 * np.arange(6)  # 0.004 in 64 examples
    earlier[:, :-6] -= 0.5
    passed, change = plateau(rising, X)
    assert not passed
    assert change.mean == pytest.approx(0.004 / 64, rel=0.2)
    assert plateau(earlier, X)[0]


def test_plateau_fails_on_a_fall_too():
    falling = flat(0.002) - 0.004 * np.arange(len(X))
    assert not plateau(falling, X)[0]


def test_plateau_without_spread():
    assert plateau(np.full((3, 30), 0.1), X)[0]
    assert not plateau(np.tile(np.linspace(0, 1, 30), (3, 1)), X)[0]


def test_plateau_needs_seeds_and_evaluations():
    assert plateau(flat(seeds=1), X) == (
        False,
        Measure(None, None, None, 1, 'one seed: no plateau test'),
    )
    passed, change = plateau(flat()[:, :5], X[:5])
    assert not passed
    assert change.note == '5 evaluations: too few for a plateau test'
    assert plateau(np.full((2, 6), 0.5), X[:6])[0]


# seeds needed


@pytest.mark.parametrize('margin', [0.004, 0.01, 0.02, 0.03])
def test_seeds_needed_is_the_smallest_that_does(margin):
    spread = np.std(VALUES, ddof=1)

    def half_width(n):
        return stats.t.interval(0.95, n - 1, loc=0, scale=spread / np.sqrt(n))[1]

    needed = seeds_needed(VALUES, margin)
    assert half_width(needed) < margin <= half_width(needed - 1)


def test_seeds_needed_grows_with_the_square_of_precision():
    coarse, fine = seeds_needed(VALUES, 0.001), seeds_needed(VALUES, 0.0005)
    assert fine / coarse == pytest.approx(4, rel=0.01)
    assert seeds_needed(10 * VALUES, 0.01) == coarse


def test_seeds_needed_of_agreeing_seeds_is_the_least_with_an_interval():
    assert seeds_needed([0.25, 0.25, 0.25], 1e-6) == 2


@pytest.mark.parametrize(
    ('values', 'margin'),
    [
        ([0.1], 0.01),
        ([], 0.01),
        ([0.1, math.nan], 0.01),
        (VALUES, 0.0),
        (VALUES, -1.0),
        (VALUES, math.nan),
        (VALUES, 1e-9),
    ],
)
def test_seeds_needed_says_so_when_it_cannot_tell(values, margin):
    assert seeds_needed(values, margin) is None
