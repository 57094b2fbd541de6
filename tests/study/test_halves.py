"""The bootstrap by halves: what it draws, and that its intervals hold what they should."""

import numpy as np
import pytest

from tljax.study.halves import firsts, halves, interval


def test_halves_keep_every_class_and_no_example_twice():
    labels = np.array([0] * 7 + [1] * 4 + [2])
    drawn = halves(labels, 6, seed=3)
    for number, half in enumerate(drawn):
        assert len(np.unique(half)) == len(half)
        assert (np.diff(half) > 0).all()
        assert np.bincount(labels[half]).tolist() == [3 + number % 2, 2, 1]
    assert len({tuple(half) for half in drawn}) > 1
    again = halves(labels, 6, seed=3)
    assert all((one == other).all() for one, other in zip(drawn, again, strict=True))


def test_halves_scatter_as_a_mean_does():
    """The deviation over halves is that of the mean of all, s / sqrt(n)."""
    values = np.random.default_rng(0).normal(size=400)
    means = [values[half].mean() for half in halves(np.zeros(400, int), 4000, seed=1)]
    assert np.std(means) == pytest.approx(values.std() / 20, rel=0.05)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held = np.random.default_rng(5), 0
    for seed in range(300):
        values = rng.normal(loc=2.0, size=60)
        scattered = np.array([values[h].mean() for h in halves(np.zeros(60, int), 200, seed)])
        found = interval(values.mean(), scattered)
        held += found.low <= 2.0 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_without_halves_there_is_no_interval():
    found = interval(0.5, np.zeros(0))
    assert (found.mean, found.low, found.high) == (0.5, None, None)
    assert 'no interval' in found.note


def test_shares_of_the_first_place_add_up():
    values = np.array([[1.0, 0.0, 2.0, 1.0], [0.0, 3.0, 2.0, 0.0], [0.5, 0.0, 2.0, 1.0]])
    np.testing.assert_allclose(firsts(values), [(1 + 1 / 3 + 0.5) / 4, (1 + 1 / 3) / 4, 5 / 24])
    assert np.isnan(firsts(np.zeros((2, 0)))).all()
