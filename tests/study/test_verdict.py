"""The verdict by interval, its sentences, and the number of seeds that would settle it."""

import math

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.study import measures
from tljax.study.measures import Measure, verdict


def decide(low, high, delta=0.01, n=10, mean=None):
    differences = np.linspace(low, high, n)
    mean = (low + high) / 2 if mean is None else mean
    return verdict(Measure(mean, low, high, n), differences, delta)


@pytest.mark.parametrize(
    ('low', 'high', 'name'),
    [
        (0.02, 0.05, 'harmful'),
        (0.001, 0.002, 'harmful'),  # small, but all above 0: the order of MEASURES.md
        (-0.05, -0.02, 'helpful'),
        (-0.002, -0.001, 'helpful'),
        (-0.005, 0.005, 'equivalent'),
        (0.0, 0.0, 'equivalent'),
        (-0.01, 0.01, 'equivalent'),  # ends exactly on delta are inside
        (0.83 - 0.84, 0.84 - 0.83, 'equivalent'),  # 0.010000000000000009 in floating point
        (0.0, 0.005, 'equivalent'),  # 0 itself is not above 0
        (-0.005, 0.0, 'equivalent'),
        (0.01, 0.01, 'harmful'),  # every seed exactly on delta: surely above 0
        (-0.01, -0.01, 'helpful'),
        (-0.01, 0.0101, 'undecided'),
        (-0.0101, 0.01, 'undecided'),
        (0.0, 0.02, 'undecided'),
        (-0.3, 0.3, 'undecided'),
    ],
)
def test_verdict_by_interval(low, high, name):
    decided = decide(low, high)
    assert decided.name == name
    assert (decided.more_seeds is None) == (name != 'undecided')
    assert ('by less than the 0.01' in decided.sentence) == (
        name in ('harmful', 'helpful') and max(abs(low), abs(high)) < 0.011
    )


def test_verdict_with_delta_zero_leaves_only_a_point_for_equivalent():
    assert decide(0.0, 0.0, delta=0.0).name == 'equivalent'
    assert decide(-0.001, 0.001, delta=0.0).name == 'undecided'
    unsettled = decide(-0.1, 0.1, delta=0.0)
    assert unsettled.more_seeds is None
    assert 'No number of seeds' in unsettled.sentence


@pytest.mark.parametrize('delta', [-0.01, math.nan])
def test_verdict_refuses_a_delta_that_is_none(delta):
    with pytest.raises(UserError, match=r'study\.delta'):
        decide(0.0, 0.1, delta=delta)


def test_verdict_sentences():
    assert verdict(Measure(-0.034, -0.056, -0.012, 10), [], 0.01, 'm').sentence == (
        'Transfer ends better than scratch by 0.034 m (95 % interval 0.012 to 0.056 m better, '
        '10 paired seeds).'
    )
    assert verdict(Measure(0.0, -0.004, 0.002, 10), [], 0.01).sentence == (
        'Transfer and scratch end equal to within 0.01 (95 % interval 0.004 better to 0.002 worse, '
        '10 paired seeds).'
    )
    assert 'ends worse than scratch by 0.02 ' in decide(0.01, 0.03).sentence


def test_undecided_names_seeds_that_settle_it():
    # Mean 0.02 above 0.01: the winner is nearest. s = 0.04 and t = 2.12 give (2.12 * 2)**2 = 18.
    rng = np.random.default_rng(0)
    differences = rng.normal(size=12)
    differences = 0.02 + 0.04 * (differences - differences.mean()) / differences.std(ddof=1)
    gap = measures.interval(differences)
    decided = verdict(gap, differences, 0.01)
    assert decided.name == 'undecided'
    assert decided.more_seeds == 18 - 12
    assert 'About 6 more seeds would settle it' in decided.sentence
    # With 18 seeds of that mean and spread it is settled.
    grown = 0.02 + 0.04 * np.tile(np.array([-1, 1]), 9) * math.sqrt(17 / 18)
    assert verdict(measures.interval(grown), grown, 0.01).name == 'harmful'


def test_undecided_close_to_zero_heads_for_equivalence():
    # Mean 0.001: telling it from 0 would take hundreds of seeds, fitting it into 0.01 takes few:
    # half width 0.009 with s = 0.02 needs 22 (t = 2.08: 2.08 * 0.02 / sqrt(22) = 0.0089).
    rng = np.random.default_rng(0)
    differences = rng.normal(size=10)
    differences = 0.001 + 0.02 * (differences - differences.mean()) / differences.std(ddof=1)
    decided = verdict(measures.interval(differences), differences, 0.01)
    assert decided.name == 'undecided'
    assert decided.more_seeds == 22 - 10


def test_undecided_asks_for_one_more_at_least_and_five_in_all():
    # Spread so small that Student's interval would do: the bootstrap's word stands.
    assert verdict(Measure(0.03, -0.001, 0.06, 10), [0.03] * 9 + [0.031], 0.01).more_seeds == 1
    assert verdict(Measure(0.03, -0.001, 0.06, 3), [0.03, 0.03, 0.031], 0.01).more_seeds == 2


def test_verdict_without_an_interval():
    single = verdict(Measure(-0.2, None, None, 1), [-0.2], 0.01)
    assert (single.name, single.more_seeds) == ('undecided', 4)
    assert 'ends better by 0.2, but a single seed shows nothing' in single.sentence
    broken = verdict(measures.interval([math.nan, 0.1]), [math.nan, 0.1], 0.01)
    assert (broken.name, broken.more_seeds) == ('undecided', None)
    assert 'could not be measured (not finite in 1 of 2 seeds)' in broken.sentence


def test_verdict_is_right_about_as_often_as_it_says():
    # No difference in truth and delta 0: whatever is not undecided is a false alarm, 10 % at ten
    # seeds (see test_statistics); 300 studies give it to within 5.2 % (three standard errors).
    draws = np.random.default_rng(0).normal(0, 0.03, (300, 10))
    names = [verdict(measures.interval(d, seed=i), d, 0.0).name for i, d in enumerate(draws)]
    wrong = sum(name != 'undecided' for name in names)
    assert 300 * 0.096 - 15.6 <= wrong <= 300 * 0.096 + 15.6
    assert {'harmful', 'helpful'} <= set(names)
