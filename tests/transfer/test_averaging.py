"""Averages of models: the formulas, what must stay bit for bit, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.errors import UserError
from tljax.transfer import averaging


def model(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        'backbone/kernel': rng.normal(size=(3, 4)).astype(dtype),
        'head/bias': rng.normal(size=5).astype(dtype),
    }


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 1.0])
def test_interpolation_is_the_line_between_two_models(share):
    first, second = model(0), model(1)
    found = averaging.interpolate(first, second, share)
    for path in first:
        wanted = first[path] + share * (second[path].astype(np.float64) - first[path])
        np.testing.assert_allclose(found[path], wanted, rtol=1e-6, atol=1e-7)
        assert found[path].dtype == np.float32


@pytest.mark.parametrize(('share', 'which'), [(0, 0), (1, 1)])
def test_the_ends_of_an_interpolation_are_the_models_bit_for_bit(share, which):
    models = [model(0), model(1)]
    found = averaging.interpolate(*models, share)
    for path in found:
        assert found[path].tobytes() == models[which][path].tobytes()


def test_an_end_is_not_touched_by_the_other_model_even_where_that_is_not_finite():
    broken = {path: np.full_like(leaf, np.nan) for path, leaf in model(1).items()}
    found = averaging.interpolate(model(0), broken, 0.0)
    assert all(np.isfinite(leaf).all() for leaf in found.values())


@pytest.mark.parametrize('share', [-0.1, 1.1, float('nan'), True, '0.5', None])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(UserError, match='from 0 to 1'):
        averaging.interpolate(model(0), model(1), share)


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_a_uniform_soup_is_the_mean(count):
    models = [model(seed) for seed in range(count)]
    found = averaging.uniform(models)
    for path in found:
        wanted = np.mean(np.stack([m[path] for m in models]).astype(np.float64), 0)
        np.testing.assert_allclose(found[path], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('count', [3, 7, 10])
def test_leaves_that_are_the_same_in_all_models_stay_bit_for_bit(count):
    models = [{**model(seed), 'frozen': model(99)['head/bias']} for seed in range(count)]
    found = averaging.uniform(models)
    assert found['frozen'].tobytes() == models[0]['frozen'].tobytes()
    assert found['frozen'] is not models[0]['frozen']


def test_a_soup_of_low_precision_is_summed_in_high():
    models = [{'w': np.asarray(x, jnp.bfloat16)} for x in (256.0, 1.0, 1.0)]
    found = averaging.uniform(models)['w']
    assert found.dtype == jnp.bfloat16
    assert float(found) == 86.0  # summed in bfloat16, 256 + 1 + 1 is 256, and the mean 85.5


def test_integers_must_agree():
    same = [{'count': np.array(3)}] * 2
    assert averaging.uniform(same)['count'].dtype == same[0]['count'].dtype
    with pytest.raises(UserError, match=r"'count' holds int64, which has no average"):
        averaging.uniform([{'count': np.array(3)}, {'count': np.array(4)}])


def test_models_with_other_leaves_are_refused_by_name():
    other = {**model(1), 'head/scale': np.zeros(5, np.float32)}
    with pytest.raises(UserError, match=r"runs/b has the leaf 'head/scale', and runs/a does not"):
        averaging.uniform([model(0), other], ['runs/a', 'runs/b'])


@pytest.mark.parametrize(
    ('leaf', 'said'), [(np.zeros(4, np.float32), r'float32\[4\]'), (np.zeros(5), r'float64\[5\]')]
)
def test_models_with_leaves_of_other_shapes_or_dtypes_are_refused(leaf, said):
    with pytest.raises(UserError, match=rf"'head/bias' is float32\[5\] in a and {said} in b"):
        averaging.uniform([model(0), {**model(1), 'head/bias': leaf}], ['a', 'b'])


def test_nothing_cannot_be_averaged():
    with pytest.raises(UserError, match='one model at least'):
        averaging.greedy([], lambda leaves: 0.0)


def near(target):
    """Higher the nearer a model's first leaf comes to a target on the average."""
    return lambda leaves: -abs(float(leaves['w'].mean()) - target)


def greedy_by_hand(values, score):
    """Recipe 1 of the paper, written out for models of one number."""
    order = sorted(range(len(values)), key=lambda i: -score(values[i]))
    soup = []
    for i in order:
        with_it = [values[j] for j in [*soup, i]]
        if not soup or score(np.mean(with_it)) >= score(np.mean([values[j] for j in soup])):
            soup.append(i)
    return soup


@pytest.mark.parametrize('seed', range(8))
def test_the_greedy_soup_is_that_of_the_recipe(seed):
    values = np.random.default_rng(seed).normal(size=6)
    soup = averaging.greedy([{'w': np.array([v])} for v in values], near(0.1))
    assert list(soup.members) == greedy_by_hand(values, lambda w: -abs(w - 0.1))
    np.testing.assert_allclose(soup.leaves['w'], values[list(soup.members)].mean(), rtol=1e-12)
    assert soup.score == near(0.1)(soup.leaves)
    assert soup.score >= max(soup.alone)
    assert [index for index, _, stays in soup.tried if stays] == list(soup.members[1:])


def test_a_model_that_changes_nothing_stays_as_in_the_paper():
    soup = averaging.greedy([{'w': np.zeros(1)}] * 3, lambda leaves: 0.5)
    assert soup.members == (0, 1, 2)


def test_a_model_whose_score_is_not_finite_is_tried_last_and_left_out():
    models = [{'w': np.array([v])} for v in (np.nan, 1.0, 3.0)]
    soup = averaging.greedy(models, near(2.0))
    assert soup.members == (1, 2)
    assert soup.tried[-1] == (0, -np.inf, False)
