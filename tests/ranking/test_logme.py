"""LogME against the density of the targets under its model, to fifty digits."""

import numpy as np
import plain_scores
import pytest
from hypothesis import given
from ranking_problems import problems, quick

from tljax.ranking import Targets
from tljax.ranking import spectrum as spectrum_lib
from tljax.ranking.logme import LEAST_RESIDUAL, evidence, logme


def floor(spectrum, y):
    """What the stated rule adds to a residual that is nearly nothing."""
    left = np.concatenate([rows for _, rows in spectrum.left_blocks()])
    rest = ((y - left @ (left.T @ y)) ** 2).sum()
    return LEAST_RESIDUAL * (y @ y) if rest < LEAST_RESIDUAL * (y @ y) else 0.0


def check(features, y):
    spectrum = spectrum_lib.of(features, centre=False)
    found = evidence(spectrum, y[:, None])
    log, alpha, beta = (float(x[0]) for x in found)
    gram, added = plain_scores.exact_gram(features), floor(spectrum, y)
    # The value is the evidence at the alpha and beta given ...
    at_these = plain_scores.log_evidence(gram, y, alpha, beta) - beta * added / 2 / len(y)
    assert log == pytest.approx(at_these, abs=1e-6)
    # ... and no others have more. Each t gets its best beta, which log_profile knows.
    ends = np.log(spectrum.values_K[[-1, 0]])
    for t in np.exp(np.arange(ends[0] - 19, ends[1] + 19, 2.1)):
        assert plain_scores.log_profile(gram, y, t, added) <= log + 1e-6


@quick
@given(problems())
def test_of_labels(problem):
    features, targets = problem
    columns = targets.columns()
    for y in columns.T:
        check(features, y)
    whole = evidence(spectrum_lib.of(features, centre=False), columns).log_C
    assert logme(features, targets) == pytest.approx(whole.mean())


@quick
@given(problems('regression'))
def test_of_numbers(problem):
    check(problem.features_NxD, problem.targets.columns()[:, 0])


@quick
@given(problems('multilabel'))
def test_of_several_labels(problem):
    features, targets = problem
    columns = targets.columns()
    assert columns.shape[1] == 2  # the third label is never there
    own = [logme(features, Targets('regression', y)) for y in columns.T]
    assert logme(features, targets) == pytest.approx(np.mean(own), abs=1e-9)


@pytest.mark.parametrize('shape', [(60, 5), (20, 20), (15, 60)])
def test_it_is_a_fixed_point(shape):
    """Equations 2 and 3: gamma = alpha |m|^2, N - gamma = beta |Xm - y|^2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    y = x[:, 0] - x[:, 1] + rng.normal(size=len(x))
    _, (alpha,), (beta,) = evidence(spectrum_lib.of(x, centre=False), y[:, None])
    inside = alpha * np.eye(shape[1]) + beta * x.T @ x
    m = beta * np.linalg.solve(inside, x.T @ y)
    gamma = shape[1] - alpha * np.trace(np.linalg.inv(inside))
    assert 0 < gamma < min(shape)
    assert gamma == pytest.approx(alpha * m @ m, rel=1e-5)
    assert shape[0] - gamma == pytest.approx(beta * ((x @ m - y) ** 2).sum(), rel=1e-5)


def test_the_largest_of_two_fixed_points():
    # A strong direction that explains a little and a weak one that explains the rest: between
    # them the evidence has a minimum, and an iteration started at one maximum stays there.
    left = np.linalg.qr(np.random.default_rng(4).normal(size=(200, 2)))[0]
    x = left * np.sqrt([1e4, 1e-4])
    spectrum = spectrum_lib.of(x, centre=False)
    y = left @ np.array([3.0, 3.0]) + 0.02 * np.random.default_rng(5).normal(size=200)
    logs = [
        plain_scores_profile(x, y, t) for t in np.exp(np.arange(np.log(1e-9), np.log(1e9), 0.01))
    ]
    assert float(evidence(spectrum, y[:, None]).log_C[0]) == pytest.approx(max(logs), abs=1e-6)
    turns = np.diff(np.sign(np.diff(logs)))
    assert (turns < 0).sum() == 2, 'the case has lost its second maximum'


def plain_scores_profile(x, y, t):
    """The evidence at the best beta, by a D x D determinant."""
    count, width = x.shape
    inside = x.T @ x + t * np.eye(width)
    m = np.linalg.solve(inside, x.T @ y)
    beta = count / (((x @ m - y) ** 2).sum() + t * m @ m)
    log_det = np.linalg.slogdet(inside)[1] + width * np.log(beta)
    whole = width * np.log(t * beta) + count * (np.log(beta / (2 * np.pi)) - 1) - log_det
    return whole / 2 / count


def test_features_that_say_nothing_leave_noise():
    y = np.array([1.0, -1.0, 1.0, -1.0])
    alone = -0.5 * (np.log(2 * np.pi) + 1)  # N(0, 1)
    zeros, crossed = np.zeros((4, 3)), np.array([[1.0], [1.0], [-1.0], [-1.0]])
    for features in (zeros, crossed):
        assert logme(features, Targets('regression', y)) == pytest.approx(alone, abs=1e-6)
    assert logme(y[:, None], Targets('regression', y)) > alone + 1  # a perfect fit stays finite
