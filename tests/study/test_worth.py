"""What a ranking was worth, against values computed by hand and by brute force."""

import itertools

import numpy as np
import pytest

from tljax.study.worth import over_sources, over_targets, regret, weighted_tau


def tau_by_hand(scores, truth):
    """Vigna 2015: pairs weighed by 1 / (rank + 1) of both, the mean of both orders' ranks."""

    def one(order_by):
        rank = np.empty(len(order_by), int)
        rank[np.lexsort((order_by, order_by))[::-1]] = np.arange(len(order_by))
        same = total = 0.0
        for i, j in itertools.combinations(range(len(order_by)), 2):
            weight = 1 / (rank[i] + 1) + 1 / (rank[j] + 1)
            same += weight * np.sign(scores[i] - scores[j]) * np.sign(truth[i] - truth[j])
            total += weight
        return same / total

    return (one(np.asarray(scores)) + one(np.asarray(truth))) / 2


@pytest.mark.parametrize('seed', range(5))
def test_tau_without_ties_is_what_the_paper_defines(seed):
    scores, truth = np.random.default_rng(seed).normal(size=(2, 7))
    assert weighted_tau(scores, truth) == pytest.approx(tau_by_hand(scores, truth))


def test_tau_weighs_the_top():
    truth = [4.0, 3.0, 2.0, 1.0]
    assert weighted_tau(truth, truth) == pytest.approx(1)
    assert weighted_tau(truth[::-1], truth) == pytest.approx(-1)
    top, bottom = weighted_tau([3, 4, 2, 1], truth), weighted_tau([4, 3, 1, 2], truth)
    assert top < bottom < 1


@pytest.mark.parametrize('scores', [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_tau_is_not_defined_for_two_sources_or_equal_ones(scores):
    assert weighted_tau(scores, np.arange(len(scores))) is None
    found = over_sources(weighted_tau, scores, np.arange(len(scores)))
    assert found.low is None
    assert 'takes 3 sources' in found.note


def test_regret_is_what_the_first_lacks():
    truth = [0.75, 0.5, 1.0]
    assert regret([1, 2, 3], truth) == 0
    assert regret([3, 2, 1], truth) == 0.25
    assert regret([3, 3, 1], truth) == pytest.approx(1 - 0.625)  # a tie: their mean


def test_intervals_hold_the_value_and_come_from_the_seed():
    scores, truth = np.random.default_rng(0).normal(size=(2, 9)) + np.arange(9)
    for statistic in (weighted_tau, regret):
        found = over_sources(statistic, scores, truth, seed=1)
        assert found.low <= found.mean <= found.high
        assert found.n == 9
        assert over_sources(statistic, scores, truth, seed=1) == found


def test_a_mean_over_targets_leaves_out_those_where_nothing_is_defined():
    rng = np.random.default_rng(0)
    good = np.arange(8.0), np.arange(8.0) + rng.normal(size=8) * 0.1
    poor = np.arange(8.0), np.arange(8.0)[::-1]
    found = over_targets(weighted_tau, [good, poor, (np.ones(3), np.arange(3))])
    assert found.mean == pytest.approx((weighted_tau(*good) + weighted_tau(*poor)) / 2)
    assert found.n == 2
    assert found.low <= found.mean <= found.high
    assert over_targets(regret, [good]).mean == pytest.approx(over_sources(regret, *good).mean)
