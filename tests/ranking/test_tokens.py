"""Scores of the next token at each position, against full matrices and loops."""

import math

import numpy as np
import plain_scores
import pytest

from tljax.ranking import SCORES, Features, Likelihood, Targets, score
from tljax.ranking.ridge_loo import STRENGTHS

# A score without a variant for tokens says so: see test_scores.
OF_FEATURES = [n for n, s in SCORES.items() if 'tokens' in s.kinds and s.needs == 'features']


def positions(count=40, width=6, seed=0):
    """Features of positions, and next tokens as frequent as in texts: many occur once."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 201)
    tokens = rng.choice(200, count, p=share / share.sum())
    assert (np.unique(tokens, return_counts=True)[1] == 1).sum() > 3
    return rng.normal(size=(count, width)) + 2 * rng.normal(size=(200, width))[tokens], tokens


def columns_of(tokens):
    return np.array([[float(token == of) for of in sorted(set(tokens))] for token in tokens])


def plain_logme(x, tokens):
    """The evidence of each token's column, the best of many ratios alpha / beta."""
    best = []
    for y in columns_of(tokens).T:
        heights = []
        for t in np.exp(np.arange(-15, 25, 0.01)):
            inside = np.eye(len(x)) + x @ x.T / t
            beta = len(x) / (y @ np.linalg.solve(inside, y))
            heights.append(
                len(x) / 2 * (math.log(beta / 2 / math.pi) - 1) - np.linalg.slogdet(inside)[1] / 2
            )
        best.append(max(heights) / len(x))
    return np.mean(best)


def test_logme_is_the_mean_evidence_of_the_tokens_that_occur():
    x, tokens = positions(count=24)
    found = score('logme', x, Targets('tokens', tokens, 500))
    assert found == pytest.approx(plain_logme(x, tokens), abs=1e-5)


def test_ridge_loo_is_how_often_the_token_left_out_is_predicted():
    x, tokens = positions()
    columns = columns_of(tokens)
    left_out = plain_scores.ridge_left_out(x, columns, STRENGTHS)
    best = ((left_out - columns) ** 2).sum((1, 2)).argmin()
    expected = (left_out[best].argmax(1) == columns.argmax(1)).mean()
    assert score('ridge_loo', x, Targets('tokens', tokens)) == pytest.approx(expected)


@pytest.mark.parametrize('name', OF_FEATURES)
def test_a_position_is_an_example_and_its_next_token_the_class(name):
    x, tokens = positions(80)
    found = score(name, x, Targets('tokens', tokens, 50_000))
    assert math.isfinite(found)
    assert found == score(name, x, Targets('classes', tokens))


@pytest.mark.parametrize('name', OF_FEATURES)
def test_features_of_the_next_token_score_above_those_of_another_position(name):
    x, tokens = positions(300, 12)
    targets = Targets('tokens', tokens)
    shuffled = np.random.default_rng(3).permutation(x)
    assert score(name, x, targets) > score(name, shuffled, targets)


@pytest.mark.slow
@pytest.mark.parametrize('name', OF_FEATURES)
def test_a_vocabulary_of_thousands_takes_seconds(name):
    """4,000 positions of 256 features: 0.5 to 3 s each on two cores, and no table of pairs."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 50_001)
    tokens = rng.choice(50_000, 4000, p=share / share.sum())
    assert math.isfinite(
        score(name, Features(rng.normal(size=(4000, 256))), Targets('tokens', tokens))
    )


def test_the_log_likelihood_is_of_words_whatever_the_texts_and_tokens():
    """-log of Radford et al.'s perplexity, by loops over texts whose tokens have probabilities."""
    rng = np.random.default_rng(5)
    texts = [rng.uniform(0.01, 1, size) for size in (3, 5, 1)]
    words = [2, 4, 1]
    expected = 1.0
    for text in texts:
        for probability in text:
            expected *= probability ** (1 / sum(words))
    found = Likelihood([np.log(text).sum() for text in texts], words)
    assert score('log_likelihood', None, Targets('tokens', [0, 1]), likelihood=found) == (
        pytest.approx(math.log(expected), abs=1e-12)
    )
    two = found.of(np.array([0, 2]))
    assert (two.nats_M.tolist(), two.words_M.tolist()) == (found.nats_M[[0, 2]].tolist(), [2, 1])


@pytest.mark.parametrize(
    ('nats', 'words', 'says'),
    [
        ([-1.0], [1, 2], 'both are'),
        ([-1.0, np.nan], [1, 2], 'finite'),
        ([-1.0, 0.5], [1, 2], '0 or less'),
        ([-1.0, -0.5], [0, 0], 'a word at least'),
    ],
)
def test_a_likelihood_that_is_refused(nats, words, says):
    with pytest.raises(ValueError, match=says):
        Likelihood(nats, words)
