"""Slope, time to a threshold and speed-up: by hand, by enumeration, and where bounds are used."""

import itertools
import math

import numpy as np
import pytest

from tljax.study import measures

X = np.array([0, 64, 128, 256, 512, 1024], float)
SCRATCH = np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.8])
TRANSFER = np.array([0.3, 0.4, 0.5, 0.7, 0.8, 0.9])


def arms(seeds=10, spread=0.02, seed=0, transfer=TRANSFER, scratch=SCRATCH):
    """Curves of both arms with noise whose mean over seeds is 0, so that mean curves are exact."""
    rng = np.random.default_rng(seed)

    def noisy(mean):
        noise = rng.normal(0, spread, (seeds, len(mean)))
        return mean + noise - noise.mean(0)

    return noisy(np.asarray(transfer, float)), noisy(np.asarray(scratch, float))


def inside(measure):
    return measure.low <= measure.mean <= measure.high


def test_slope_by_hand():
    # 95 % of scratch's 0.8 is 0.76, reached at the last evaluation: the window is log2 = 6..10.
    found = measures.slope(*arms(), X)
    expected = np.polyfit([6, 7, 8, 9, 10], (TRANSFER - SCRATCH)[1:], 1)[0]
    assert found.mean == pytest.approx(expected)
    assert found.note.startswith('from 64 to 1024 examples, 5 evaluations')
    assert inside(found)


def test_slope_window_ends_where_scratch_has_risen():
    scratch = [0.0, 0.2, 0.74, 0.79, 0.8, 0.8]  # 0.76 is reached at 256, 0.72 before
    transfer = [0.0, 0.1, 0.6, 1.1, 0.0, 9.0]  # only 64 to 256 may count
    found = measures.slope(*arms(transfer=transfer, scratch=scratch, spread=0.001), X)
    # Equally spaced in log2: the slope of three points is (last - first) / 2.
    assert found.mean == pytest.approx((1.1 - 0.1) / 2 - (0.79 - 0.2) / 2)
    assert found.note == 'from 64 to 256 examples, 3 evaluations'


def test_slope_window_is_drawn_again_with_the_seeds():
    # One seed of six is late: with it the window goes to 1024, without it, as in (5/6)**6 = 33 %
    # of the resamples, to 128. Transfer is 0.4 higher at 128 in every seed, which gives slopes of
    # 0.4 over log2 = 6, 7 and 0.4 * (-1) / 10 = -0.04 over 6..10; a fixed window knows one only.
    early, late = [0, 0.4, 0.8, 0.8, 0.8, 0.8], [0, 0.0, 0.0, 0.0, 0.0, 0.8]
    scratch = np.array([early] * 5 + [late])
    found = measures.slope(scratch + np.array([0, 0, 0.4, 0, 0, 0]), scratch, X)
    assert (found.mean, found.low, found.high) == pytest.approx((-0.04, -0.04, 0.4))


def test_slope_tells_who_is_ahead_from_who_is_slower():
    found = measures.slope(*arms(), X)
    assert found.mean < 0
    assert 'transfer is ahead when the window opens' in found.note
    behind = measures.slope(*arms(transfer=0.5 * SCRATCH), X)
    assert behind.mean < 0
    assert 'ahead' not in behind.note
    both = measures.slope(*arms(transfer=2 * SCRATCH), X)
    assert both.mean > 0
    assert 'ahead' not in both.note


def test_speedup_by_hand():
    found = {f: measures.speedup(*arms(), X, f) for f in (0.5, 0.8, 0.95)}
    # Threshold 0.4: scratch half-way from 128 to 256; transfer at the evaluation at 64.
    assert found[0.5].mean == pytest.approx(192 / 64)
    # 0.64: scratch 0.7 of the way from 256 to 512; transfer 0.7 of the way from 128 to 256.
    assert found[0.8].mean == pytest.approx((256 + 0.7 * 256) / (128 + 0.7 * 128))
    # 0.76: scratch 0.6 of the way from 512 to 1024; transfer 0.6 of the way from 256 to 512.
    assert found[0.95].mean == pytest.approx((512 + 0.6 * 512) / (256 + 0.6 * 256))
    assert all(inside(m) and m.n == 10 for m in found.values())
    assert found[0.8].note == 'threshold 0.64: transfer 218, scratch 435 examples'
    # Reached exactly at the first evaluation is no bound.
    exact = measures.speedup(*arms(2, spread=0.0), X, 0.5)
    assert exact.note.startswith('threshold 0.4: transfer 64, scratch 192 examples; only 2 seeds')
    named = measures.measure_all(*arms(), X, [0.9] * 10, [0.8] * 10)
    assert {f: named[f'speedup_{100 * f:.0f}'] for f in found} == found


def test_speedup_interval_recomputes_thresholds_and_times():
    transfer, scratch = arms(seeds=5, spread=0.1, seed=3)
    found = measures.speedup(transfer, scratch, X, 0.8)
    ratios = []
    dense = np.linspace(0, 1024, 100_001)
    for drawn in itertools.combinations_with_replacement(range(5), 5):
        ways = math.factorial(5) // math.prod(math.factorial(drawn.count(i)) for i in range(5))
        t, s = transfer[list(drawn)].mean(0), scratch[list(drawn)].mean(0)
        reach = [
            dense[(np.interp(dense, X, curve) >= 0.8 * s[-1]).argmax()] if any(curve >= 0.8 * s[-1])
            else 1024.0
            for curve in (t, s)
        ]  # fmt: skip
        ratios += [max(reach[1], 64) / max(reach[0], 64)] * ways
    assert len(ratios) == 5**5
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, rel=0.05), pytest.approx(high, rel=0.05))
    assert low < 0.95 * found.mean < 1.05 * found.mean < high  # so the tolerance can fail


def test_transfer_above_the_threshold_at_the_start_gives_a_bound_not_infinity():
    found = measures.speedup(*arms(transfer=TRANSFER + 0.3), X, 0.5)
    # Scratch reaches 0.4 at 192; transfer has it at 0, which counts as the first evaluation, 64.
    assert found.mean == pytest.approx(192 / 64)
    assert found.note == (
        'threshold 0.4: transfer < 64, scratch 192 examples, so at least this; '
        'the high end may lie higher'
    )


def test_there_is_no_jump_where_the_start_passes_the_threshold():
    # A start just below 0.4 crosses within the first examples, one just above has no time at all.
    below, above = (
        measures.speedup(*arms(transfer=[start, 0.9, 0.9, 0.9, 0.9, 0.9]), X, 0.5).mean
        for start in (0.399, 0.401)
    )
    assert below == above == pytest.approx(3.0)


def test_transfer_that_never_gets_there_is_bounded_and_said():
    low = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    found = measures.speedup(*arms(transfer=low), X, 0.8)
    assert found.mean == pytest.approx((256 + 0.7 * 256) / 1024)
    assert found.note == (
        'threshold 0.64: transfer > 1024, scratch 435 examples, so at most this; '
        'transfer > 1024 examples in 10 of 10 seeds; the low end may lie lower'
    )


def test_single_seeds_that_never_get_there_are_counted():
    transfer, scratch = arms(spread=0.0)
    transfer[:2] = np.minimum(transfer[:2], 0.6)
    scratch[7, -1] = 0.6
    found = measures.speedup(transfer, scratch, X, 0.95)  # 0.95 * 0.78 = 0.741
    assert 'transfer > 1024 examples in 2 of 10 seeds' in found.note
    assert 'scratch > 1024 examples in 1 of 10 seeds' in found.note
    assert found.n == 10
    assert 'at most' not in found.note


def test_a_threshold_that_scratch_has_from_the_start():
    found = measures.speedup(*arms(scratch=[0.7, 0.7, 0.7, 0.7, 0.8, 0.8]), X, 0.8)
    # 0.64: scratch at once (counts as 64), transfer at 217.6.
    assert found.mean == pytest.approx(64 / 217.6)
    assert 'scratch < 64 examples, so at most this' in found.note
    assert found.note.endswith('the low end may lie lower')
    both = measures.speedup(*arms(scratch=[0.7] * 6, transfer=[0.9] * 6), X, 0.5)
    assert both.mean == 1.0
    assert 'both sooner than can be told apart' in both.note


def test_first_reach():
    curves = [[0.0, 0.5, 0.2, 0.9], [0.6, 0.0, 0.0, 0.7], [0.0, 0.1, 0.2, 0.3], [0, 0, 0, 0.5]]
    found = measures.first_reach(curves, [0.25, 0.5, 0.5, 0.5], [0, 10, 20, 40])
    # Half-way up the first line though it falls again; at once; never; exactly at the end.
    assert found.tolist() == [5.0, 0.0, math.inf, 40.0]
