"""The register: what it refuses, what it promises, and that sources come out in the right order."""

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.ranking import SCORES, Features, NotDefined, Targets, inputs, score

CLOSED_FORMS = ('logme', 'h_score', 'shrunk_h_score', 'transrate', 'ridge_loo')
PROMISES = [(name, way) for name, s in SCORES.items() for way in sorted(s.invariant_to)]


def example(count=60, width=8, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.array([6, 3, 1]) / 10)
    return rng.normal(size=(count, width)) + 1.5 * np.eye(classes, width)[labels], labels


@pytest.mark.parametrize(('name', 'way'), PROMISES)
@pytest.mark.parametrize('shape', [(60, 8), (20, 40)])
def test_promised_invariances(name, way, shape):
    x, y = example(*shape)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(shape[1],) * 2))[0]
    changed = {'rotation': x @ rotation, 'scale': x * 1e6, 'shift': x + 4.0}[way]
    before, after = (score(name, f, Targets('classes', y)) for f in (x, changed))
    assert after == pytest.approx(before, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize('name', CLOSED_FORMS)
def test_order_of_examples_and_names_of_classes_do_not_matter(name):
    x, y = example()
    order = np.random.default_rng(2).permutation(len(x))
    renamed = np.array([5, 0, 3])[y]
    before = score(name, x, Targets('classes', y))
    assert score(name, x[order], Targets('classes', y[order])) == pytest.approx(before)
    assert score(name, x, Targets('classes', renamed, 7)) == pytest.approx(before)


@pytest.mark.parametrize('name', CLOSED_FORMS)
def test_float32_features_score_as_float64(name):
    x, y = example()
    targets = Targets('classes', y)
    single = x.astype(np.float32)
    assert score(name, single, targets) == score(name, single.astype(np.float64), targets)


@pytest.mark.parametrize('name', CLOSED_FORMS)
def test_informative_features_score_above_shuffled_ones(name):
    x, y = example(200)
    shuffled = np.random.default_rng(3).permutation(x)
    targets = Targets('classes', y)
    assert score(name, x, targets) > score(name, shuffled, targets)


def test_scores_share_one_decomposition(monkeypatch):
    from scipy import linalg

    calls, own = [], linalg.eigh
    monkeypatch.setattr(linalg, 'eigh', lambda *a, **k: calls.append(1) or own(*a, **k))
    x, y = example()
    features, targets = Features(x), Targets('classes', y)
    for name in CLOSED_FORMS:
        score(name, features, targets)
    assert len(calls) == 2  # of the features as they are, and less their mean


def test_every_entry_says_what_it_is():
    for name, entry in SCORES.items():
        assert entry.name == name
        assert entry.higher_is_better
        assert entry.needs in ('features', 'probabilities', 'likelihood')
        assert entry.kinds <= {'classes', 'regression', 'multilabel', 'tokens'}
        assert entry.invariant_to <= {'rotation', 'scale', 'shift'}
        assert any(character.isdigit() for character in entry.paper)  # a year
        assert not entry.why_not.endswith('.')


@pytest.mark.parametrize('name', sorted(SCORES))
@pytest.mark.parametrize('kind', ['classes', 'tokens', 'boxes'])
def test_no_variant_is_said_plainly(name, kind):
    if kind in SCORES[name].kinds:
        pytest.skip('it has one')
    values = [[], []] if kind == 'boxes' else [0, 1]
    with pytest.raises(NotDefined, match=f'{name} is not defined for'):
        score(name, np.ones((2, 1)), Targets(kind, values))


def test_what_a_source_lacks_is_said_plainly():
    with pytest.raises(NotDefined, match=r'leep needs the probabilities of .* has no classifier'):
        score('leep', np.ones((2, 1)), Targets('classes', [0, 1]))
    with pytest.raises(NotDefined, match=r'log_likelihood needs .* own head over the tokens'):
        score('log_likelihood', np.ones((2, 1)), Targets('tokens', [0, 1]))


def test_means_of_classes_have_no_variant_for_numbers():
    with pytest.raises(NotDefined, match='h_score is not defined for regression: it compares'):
        score('h_score', np.ones((2, 1)), Targets('regression', [0.0, 1.0]))


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'logme'"):
        score('log_me', np.ones((2, 1)), Targets('classes', [0, 1]))


@pytest.mark.parametrize(
    ('features', 'probabilities', 'says'),
    [
        (np.ones((3, 1)), None, 'features of 3 examples, but targets of 2'),
        (np.ones((2, 1)), np.ones((3, 1)), r'\(2 examples, source classes\), not an array of'),
        (np.ones((2, 1)), [[0.5, 0.6], [0.5, 0.5]], 'add up to 1'),
        (np.ones((2, 1)), [[1.5, -0.5], [0.5, 0.5]], 'not be negative'),
        (np.ones((2, 1)), [[np.nan, 0.5], [0.5, 0.5]], 'not be negative'),
    ],
)
def test_inputs_that_do_not_fit(features, probabilities, says):
    with pytest.raises(ValueError, match=says):
        inputs(features, Targets('classes', [0, 1]), probabilities)
