"""The measures against values worked out by hand, their symmetries, and their edges."""

import itertools
import json
import math
import re

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.study import measures
from tljax.study.measures import Measure, verdict

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


def everything(transfer, scratch, x=X, **keywords):
    return measures.measure_all(transfer, scratch, x, transfer[:, -1], scratch[:, -1], **keywords)


def as_json(found):
    """What a report would hold; fails on NaN, infinity and numpy types."""
    return json.loads(json.dumps({k: m.to_json() for k, m in found.items()}, allow_nan=False))


def inside(measure):
    return measure.low <= measure.mean <= measure.high


def test_rescale_by_chance_and_ceiling():
    # Ten classes: guessing scores 0.1. An error rate has its ceiling at 0 and its chance at 0.9.
    accuracy = measures.rescale([[0.1, 0.55], [1.0, 0.01]], 0.1, 1.0)
    np.testing.assert_allclose(accuracy, [[0, 0.5], [1, -0.1]])
    error = measures.rescale([0.9, 0.45, 0.0], 0.9, 0.0, higher_is_better=False)
    np.testing.assert_allclose(error, [0, 0.5, 1])


def test_rescale_without_both_only_turns_the_sign():
    for chance, ceiling in itertools.product((None, 0.5), (None, 2.0)):
        if None in (chance, ceiling):
            assert measures.rescale([3.0], chance, ceiling).tolist() == [3.0]
            assert measures.rescale([3.0], chance, ceiling, False).tolist() == [-3.0]


@pytest.mark.parametrize(
    ('chance', 'ceiling', 'higher'), [(1.0, 1.0, True), (0.5, 0.1, True), (0.0, 0.5, False)]
)
def test_rescale_refuses_a_ceiling_below_chance(chance, ceiling, higher):
    with pytest.raises(UserError, match=r'ceiling .* no better than its chance .*data\.classes'):
        measures.rescale([0.5], chance, ceiling, higher)


def test_zero_level():
    assert measures.zero_level(0.1, 1.0) == 0.0
    assert measures.zero_level(20.0, None) == 20.0
    assert measures.zero_level(2.3, None, higher_is_better=False) == -2.3
    assert measures.zero_level(None, None) is None
    assert measures.zero_level(None, 1.0) is None


def test_jumpstart_by_hand():
    found = measures.jumpstart([[0.5, 1], [0.3, 1]], [[0.1, 0], [0.2, 0]], [0, 64])
    assert found.mean == pytest.approx(0.25)  # (0.4 + 0.1) / 2
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.4))


def test_probe_jumpstart_by_hand():
    found = measures.probe_jumpstart([[0.9, 0.5], [0.8, 0.6], [0.7, 0.4]])
    assert found.mean == pytest.approx(0.3)
    assert measures.probe_jumpstart(None) == Measure(None, None, None, 0, 'no linear probe was run')
    with pytest.raises(ValueError, match='seeds, 2'):
        measures.probe_jumpstart([0.1, 0.2])


def test_asymptote_by_hand():
    # 20 evaluations: the mean of the last two once level, the very last while rising. The last
    # fifth of `level` has a slope of 0: -1.5 * 0.90 - 0.5 * 0.87 + 0.5 * 0.93 + 1.5 * 0.88.
    x = np.arange(20.0) * 64
    level = np.r_[np.linspace(0, 0.9, 12), [0.9, 0.9, 0.9, 0.9, 0.90, 0.87, 0.93, 0.88]]
    rising = np.linspace(0, 0.76, 20)
    transfer, scratch = arms(transfer=level, scratch=rising, spread=0.004)
    found = measures.asymptote(transfer, scratch, x)
    assert found.mean == pytest.approx((0.93 + 0.88) / 2 - 0.76)
    assert found.note == 'transfer: plateau, scratch: final at budget'
    assert measures.arm_asymptote(transfer, x).mean == pytest.approx(0.905)
    assert measures.arm_asymptote(transfer, x).note == 'plateau'
    assert measures.arm_asymptote(scratch, x).note == 'final at budget'


def test_asymptote_says_when_a_plateau_cannot_be_tested():
    found = measures.asymptote(*(a[:, :3] for a in arms()), X[:3])
    assert found.note.count('final at budget (3 evaluations: too few for a plateau test)') == 2
    assert found.mean == pytest.approx(0.5 - 0.3)


def test_areas_by_hand():
    # Trapezoids over 0, 64, 128: T (0.4 + 0.6) / 2 and (0.6 + 0.8) / 2, S 0.2 and 0.5.
    pair = arms(transfer=[0.4, 0.6, 0.8], scratch=[0.0, 0.4, 0.6])
    x = [0, 64, 128]
    assert measures.area_difference(*pair, x).mean == pytest.approx(0.6 - 0.35)
    found = measures.area_ratio(*pair, x)
    assert found.mean == pytest.approx((0.6 - 0.35) / 0.35)
    assert found.note.startswith('mean of m_T - m_S over x 0.25 [0.2')
    assert inside(found)


def test_area_weighs_by_examples_not_by_evaluations():
    found = measures.area_difference([[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]], [0, 10, 1000])
    assert found.mean == pytest.approx((10 + 990 / 2) / 1000)


def test_area_ratio_is_of_means_not_a_mean_of_ratios():
    # Seeds' own ratios: 9 and 0, mean 4.5; areas together: 1.9 over 1, so 0.9.
    found = measures.area_ratio([[1.0, 1.0], [0.9, 0.9]], [[0.1, 0.1], [0.9, 0.9]], [0, 64])
    assert found.mean == pytest.approx(0.9)


def test_gap_by_hand():
    found = measures.negative_transfer_gap([0.90, 0.80, 0.85], [0.80, 0.82, 0.80])
    assert found.mean == pytest.approx((-0.10 + 0.02 - 0.05) / 3)
    assert (found.low, found.high) == (pytest.approx(-0.10), pytest.approx(0.02))
    losses = measures.negative_transfer_gap([1.0, 2.0], [2.0, 2.5], higher_is_better=False)
    assert losses.mean == pytest.approx(-0.75)
    found = measures.measure_all(*arms(2), X, [1.0, 2.0], [2.0, 2.5], higher_is_better=False)
    assert found['negative_transfer_gap'] == losses
    with pytest.raises(ValueError, match='one final metric per seed'):
        measures.negative_transfer_gap([0.9], [0.8, 0.8])


def test_intervals_are_paired():
    # Seeds differ by far more than the arms do; only pairing shows the constant lead.
    shift = np.linspace(-0.3, 0.3, 10)[:, None]
    found = everything(TRANSFER + shift, SCRATCH + shift)
    for name in ('jumpstart', 'asymptote'):
        assert found[name].low == pytest.approx(found[name].high)
    assert measures.jumpstart(TRANSFER + shift, SCRATCH - shift, X).low < 0.1


@pytest.mark.parametrize('seeds', [1, 2, 3, 10])
@pytest.mark.parametrize('evaluations', [1, 2, 3, 6])
@pytest.mark.parametrize('zero', [0.0, None])
def test_equal_arms_show_nothing(seeds, evaluations, zero):
    curves = arms(seeds, spread=0.05 * (seeds > 1))[1][:, :evaluations]
    probe = np.repeat(curves[:, -1:], 2, 1)
    found = everything(curves, curves, X[:evaluations], zero=zero, probe=probe)
    assert tuple(found) == measures.NAMES
    as_json(found)
    for name, measure in found.items():
        assert measure.n == seeds
        if measure.mean is None:
            assert measure.note
            assert name.startswith(('slope', 'speedup', 'area'))
            continue
        null = 1.0 if name.startswith('speedup') else 0.0
        ends = (None, None) if seeds == 1 else (null, null)
        assert (measure.mean, measure.low, measure.high) == (null, *ends)
    if evaluations == 6:
        assert all(m.mean is not None for m in found.values())
    decided = verdict(found['negative_transfer_gap'], np.zeros(seeds), 0.01)
    assert decided.name == ('undecided' if seeds < 5 else 'equivalent')


def test_swapping_the_arms_turns_the_differences():
    one, other = arms(spread=0.05)
    there, back = everything(one, other), everything(other, one)
    for name in ('jumpstart', 'asymptote', 'negative_transfer_gap'):
        assert there[name].mean == pytest.approx(-back[name].mean)
        assert there[name].low == pytest.approx(-back[name].high)
        assert there[name].mean != 0
    swapped = measures.area_difference(other, one, X)
    assert measures.area_difference(one, other, X).mean == pytest.approx(-swapped.mean)
    # Thresholds and windows belong to scratch, so these only change sides.
    assert there['speedup_80'].mean > 1 > back['speedup_80'].mean
    assert there['area_ratio'].mean > 0 > back['area_ratio'].mean


def test_stretching_x_leaves_all_but_notes():
    pair = arms(spread=0.05)
    once, twice = everything(*pair), everything(*pair, 4 * X)
    for name in measures.NAMES:
        assert [once[name].mean, once[name].low] == pytest.approx(
            [twice[name].mean, twice[name].low]
        )


@pytest.mark.parametrize('seed', range(4))
def test_no_noise_makes_anything_but_plain_numbers(seed):
    rng = np.random.default_rng(seed)
    for seeds, evaluations, zero in itertools.product((1, 2, 4), (1, 2, 7), (0.0, None, -1.0)):
        transfer, scratch = rng.normal(0, 1, (2, seeds, evaluations))
        x = np.r_[0, np.cumsum(rng.uniform(1, 100, evaluations - 1))]
        for name, measure in everything(transfer, scratch, x, zero=zero).items():
            assert measure.note or measure.mean is not None, name
            if seeds > 1 and measure.mean is not None:
                assert measure.low <= measure.high
        as_json(everything(transfer, scratch, x, zero=zero))


def test_the_seed_decides_the_resampling():
    pair = arms(spread=0.05)
    assert everything(*pair, seed=1) == everything(*pair, seed=1)
    assert everything(*pair, seed=1) != everything(*pair, seed=2)


def test_one_seed_has_no_interval():
    found = everything(*arms(seeds=1, spread=0.0))
    for name, measure in found.items():
        assert (measure.low, measure.high) == (None, None)
        if name != 'probe_jumpstart':
            assert 'one seed' in measure.note
            assert measure.mean is not None


def test_ten_seeds_with_one_evaluation():
    found = everything(*(a[:, :1] for a in arms()), X[:1])
    assert found['jumpstart'].mean == pytest.approx(0.3)
    assert found['asymptote'].mean == pytest.approx(0.3)
    for name in ('slope', 'speedup_50', 'speedup_80', 'speedup_95', 'area_ratio'):
        assert found[name].mean is None
        assert found[name].n == 10
    assert found['speedup_50'].note == 'one evaluation: no time to a threshold'


def test_curves_with_holes_are_not_measured():
    transfer, scratch = arms()
    transfer[3, 2], scratch[3, 2], scratch[5, 1] = math.inf, -math.inf, math.nan
    found = everything(transfer, scratch)
    as_json(found)
    for name in ('jumpstart', 'slope', 'speedup_80', 'asymptote', 'area_ratio'):
        assert found[name] == Measure(None, None, None, 10, 'not finite in 2 of 10 seeds')
    assert measures.arm_asymptote(transfer, X).note == 'not finite in 1 of 10 seeds'
    assert measures.arm_asymptote(transfer, X).mean is None


@pytest.mark.parametrize(
    ('transfer', 'x', 'message'),
    [
        (np.zeros((10, 6)), X[:5], 'one x per evaluation'),
        (np.zeros((9, 6)), X, 'one x per evaluation'),
        (np.zeros(6), X, 'one x per evaluation'),
        (np.zeros((10, 6)), X + 1, 'start at 0'),
        (np.zeros((10, 6)), np.zeros(6), 'increase'),
    ],
)
def test_shapes_are_checked(transfer, x, message):
    with pytest.raises(ValueError, match=message):
        measures.jumpstart(transfer, np.zeros((10, 6)), x)


@pytest.mark.parametrize('level', [0.0, -0.2])
def test_scratch_at_or_below_chance_has_no_thresholds_and_no_ratio(level):
    transfer, scratch = arms(scratch=[level] * 6)
    found = everything(transfer, scratch)
    for name in ('speedup_50', 'speedup_80', 'speedup_95', 'area_ratio'):
        assert found[name].mean is None
        assert 'not clearly above' in found[name].note
        assert found[name].n == 10
    # What does not divide by scratch is still measured.
    assert found['jumpstart'].mean == pytest.approx(0.3 - level)
    raw = re.search(r'm_T - m_S over x ([\d.]+) \[', found['area_ratio'].note)
    assert float(raw[1]) == pytest.approx(np.trapezoid(TRANSFER - level, X) / 1024, abs=6e-4)
    assert 'from 64 to 1024 examples, 5 evaluations; all of them, as' in found['slope'].note


def test_a_denominator_near_zero_is_refused_by_its_interval_not_by_its_mean():
    noise = np.random.default_rng(0).normal(0, 0.3, (10, 1))
    scratch = 0.05 + noise - noise.mean() + np.zeros((10, 6))
    assert measures.area_ratio(scratch + 0.1, scratch, X).mean is None
    steady = 0.05 + (noise - noise.mean()) / 100 + np.zeros((10, 6))
    assert measures.area_ratio(steady + 0.1, steady, X).mean == pytest.approx(2.0)


def test_negative_metrics_count_from_the_start_of_scratch():
    # m = -loss. Shares of -0.5 would be thresholds above it; shares of the way up are not.
    level = np.array([0.0, 0.1, 0.5, 0.79, 0.8, 0.8])  # a window that ends before the curve does
    transfer, scratch = arms(transfer=2 * TRANSFER - 2.1, scratch=2 * level - 2.1)
    plain = everything(*arms(scratch=level))
    found = everything(transfer, scratch, zero=None)
    for name in ('slope', 'speedup_50', 'speedup_80', 'speedup_95', 'area_ratio'):
        factor = 2 if name == 'slope' else 1
        assert found[name].mean == pytest.approx(factor * plain[name].mean), name
    assert 'counted from the start of scratch' in found['speedup_80'].note
    assert measures.speedup(transfer, scratch, X, 0.8).mean is None  # -0.5 is below a zero of 0


def test_a_chance_level_without_ceiling_is_the_zero():
    moved = [a + 20 for a in arms()]
    assert measures.speedup(*moved, X, 0.8, zero=20.0).mean == pytest.approx(2.0)
    assert measures.area_ratio(*moved, X, zero=20.0).mean == pytest.approx(
        measures.area_ratio(*arms(), X).mean
    )
