"""Split strings made absolute, and stratified draws."""

import types

import numpy as np
import pytest

from tljax.data import splits
from tljax.data.sources import chosen_classes
from tljax.errors import UserError

INFOS = {
    'train': types.SimpleNamespace(num_examples=100, shard_lengths=[60, 40]),
    'test': types.SimpleNamespace(num_examples=20, shard_lengths=[20]),
}


@pytest.mark.parametrize(
    ('spec', 'expected'),
    [
        ('train', [('train', 0, 100)]),
        ('train[:10%]', [('train', 0, 10)]),
        ('train[-5:]', [('train', 95, 100)]),
        ('train[10:20]+test[50%:]', [('train', 10, 20), ('test', 10, 20)]),
        ('train[:1shard]', [('train', 0, 60)]),
        ('all', [('train', 0, 100), ('test', 0, 20)]),
    ],
)
def test_intervals(spec, expected):
    assert splits.intervals(spec, 'data.train', INFOS) == expected


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('tran', "there is no split 'tran'. Did you mean 'train'?"),
        ('', "there is no split ''"),
        ('train+tst', "there is no split 'tst'. Did you mean 'test'?"),
        ('train[:', 'is no TFDS split string'),
        ('train[:150%]', 'is no TFDS split string'),
        ('train[200:]', 'Requested slice'),
        ('train[5:2]', 'selects no examples'),
        ('train[:10]+train[5:]', r'selects 5 examples (train[5:10]) more than once'),
    ],
)
def test_wrong_split_strings(spec, said):
    with pytest.raises(UserError) as caught:
        splits.intervals(spec, 'data.validation', INFOS)
    assert said in str(caught.value)
    assert f'config.data.validation={spec!r}' in str(caught.value)


def check(**specs):
    splits.check_disjoint({k: (s, splits.intervals(s, k, INFOS)) for k, s in specs.items()})


def test_disjoint_splits_pass():
    check(train='train[:80%]', validation='train[80%:]', test='test')
    check(train='train[20:]+test[:10]', validation='train[:20]', test='test[10:]')


@pytest.mark.parametrize(
    ('specs', 'shared'),
    [
        (dict(train='train', test='train'), '100 examples (train[0:100])'),
        (dict(train='train[:80%]', validation='train[79%:]'), '1 examples (train[79:80])'),
        (dict(validation='test[:1]', test='train+test'), '1 examples (test[0:1])'),
        (dict(train='train[:60]', validation='train[-50:-45]'), '5 examples (train[50:55])'),
    ],
)
def test_overlaps_are_refused(specs, shared):
    with pytest.raises(UserError) as caught:
        check(**specs)
    for key, spec in specs.items():
        assert f'config.{key}={spec!r}' in str(caught.value)
    assert shared in str(caught.value)


LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 10]))


def test_holdout_keeps_proportions():
    held = splits.draw_holdout(LABELS, 0.2, seed=1)
    assert np.bincount(LABELS[held]).tolist() == [12, 6, 2]
    assert (np.diff(held) > 0).all()


def test_holdout_gives_leftovers_to_the_largest_remainders():
    # 13 of 100: quotas 7.8, 3.9 and 1.3; floors 7, 3 and 1 leave 2, for .9 and .8.
    held = splits.draw_holdout(LABELS, 13, seed=1)
    assert np.bincount(LABELS[held]).tolist() == [8, 4, 1]


def test_holdout_depends_on_the_seed_alone():
    first = splits.draw_holdout(LABELS, 0.2, seed=1)
    np.testing.assert_array_equal(first, splits.draw_holdout(LABELS, 20, seed=1))
    assert set(first) != set(splits.draw_holdout(LABELS, 0.2, seed=2))


@pytest.mark.parametrize('holdout', [1e-6, 100, 1000, 2.5, 0.999])
def test_impossible_holdouts(holdout):
    with pytest.raises(UserError, match=r'config\.data\.holdout'):
        splits.draw_holdout(LABELS, holdout, seed=0)


def test_shots_are_stratified_and_nested():
    small, large = (splits.draw_shots(LABELS, shots, 3, 'abc') for shots in (2, 5))
    assert small.dtype == np.int32
    assert np.bincount(LABELS[small]).tolist() == [2, 2, 2]
    assert np.bincount(LABELS[large]).tolist() == [5, 5, 5]
    # A data-size study compares subsets of one seed: the larger holds the smaller.
    assert set(small) < set(large)
    assert set(small) != set(splits.draw_shots(LABELS, 2, 4, 'abc'))


def test_shots_are_drawn_fairly():
    """Over 2,000 seeds every row of a class is drawn equally often, within 5 standard errors."""
    draws = [splits.draw_shots(LABELS, 2, seed, 'abc') for seed in range(2000)]
    times = np.bincount(np.concatenate(draws), minlength=100)
    for label, size in enumerate([60, 30, 10]):
        p = 2 / size
        error = np.sqrt(2000 * p * (1 - p))
        assert abs(times[label == LABELS] - 2000 * p).max() < 5 * error


def test_neighbouring_seeds_share_no_draws():
    """Seeds are 0, 1, 2, ... in a study: the keys of one must not be those of another, shifted."""
    first, second = (splits.random_keys(1000, seed, 'order', 0) for seed in (0, 1))
    assert not set(first.tolist()) & set(second.tolist())
    assert not set(first.tolist()) & set(splits.random_keys(1000, 0, 'order', 1).tolist())


def test_too_few_shots_names_the_classes():
    with pytest.raises(UserError, match=r'config\.data\.shots=11.*cow \(10\)'):
        splits.draw_shots(LABELS, 11, 0, ['cat', 'dog', 'cow'])


def test_just_enough_shots_take_the_whole_class():
    chosen = splits.draw_shots(LABELS, 10, 0, ['cat', 'dog', 'cow'])
    assert set(np.flatnonzero(LABELS == 2)) < set(chosen)


def test_a_class_without_examples_has_too_few():
    with pytest.raises(UserError, match=r'dog \(0\)'):
        splits.draw_shots(np.zeros(5, np.int32), 1, 0, ['cat', 'dog'])


def test_the_draws_stay_as_they_are():
    """Golden, the same with numpy 2.4 and 2.5: only PCG64's raw bits, which numpy promises to
    keep. A change would give finished studies other subsets than their splits.json says."""
    keys = splits.random_keys(2, 0, 'shots').tolist()
    assert keys == [6924616090248422972, 7880708702249844685]
    assert splits.draw_shots(np.arange(100) % 3, 1, 0, 'abc').tolist() == [38, 42, 70]
    assert splits.draw_holdout(np.arange(20) % 2, 4, 0).tolist() == [2, 5, 8, 9]


def test_numbers_that_are_names_of_other_classes_are_refused():
    stars = ('1', '2', '3', '4', '5')
    with pytest.raises(
        UserError, match=r'config\.data\.classes: 1 counts classes from 0.*Write names'
    ):
        chosen_classes((1, 5), stars)
    assert chosen_classes(('1', '5'), stars) == [0, 4]
    assert chosen_classes((1, 0), ('0', '1')) == [1, 0]


def test_the_only_example_of_a_class_stays_for_training():
    labels = np.array([0, 1, 2, 3, 4] + [5] * 95)
    held = splits.draw_holdout(labels, 0.2, 0)
    assert len(held) == 20
    assert set(labels[held]) == {5}
