"""What published implementations of these scores get wrong, each beside what is right here.

Each defect is written out, so that a test fails if the case no longer tells wrong from right.
"""

import numpy as np
import plain_scores
import pytest

from tljax.ranking import Targets, score
from tljax.ranking import spectrum as spectrum_lib
from tljax.ranking.logme import evidence


def test_logme_counts_all_directions_when_there_are_fewer_examples_than_features():
    # The defect: D / 2 log(alpha) is taken for all D directions, while the determinant's logarithm
    # is summed over the K = N of them that a thin SVD gives.
    rng = np.random.default_rng(0)
    count, width = 64, 512
    x = rng.normal(size=(count, width))
    y = x[:, :8].sum(1) + rng.normal(size=count)
    log, alpha, beta = (float(v[0]) for v in evidence(spectrum_lib.of(x, False), y[:, None]))
    inside = alpha * np.eye(width) + beta * x.T @ x
    m = beta * np.linalg.solve(inside, x.T @ y)
    squares = beta * ((x @ m - y) ** 2).sum() + alpha * m @ m
    rest = count * np.log(beta / (2 * np.pi)) + width * np.log(alpha) - squares
    right = (rest - np.linalg.slogdet(inside)[1]) / 2 / count
    thin = alpha + beta * np.linalg.svd(x, compute_uv=False) ** 2
    wrong = (rest - np.log(thin).sum()) / 2 / count
    assert log == pytest.approx(right, abs=1e-6)
    assert wrong - right == pytest.approx((width - count) / 2 / count * np.log(alpha))
    assert abs(wrong - right) > 5


def test_h_score_multiplies_matrices_and_stays_below_its_bound():
    # The defect: elementwise multiplication where a matrix product belongs, so that the trace is
    # sum_d P_dd B_dd. Features that repeat each other have a large P_dd.
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 10
    codes = rng.normal(size=(10, 12))[labels] + rng.normal(size=(200, 12))
    x = codes @ rng.normal(size=(12, 32)) + 0.3 * rng.normal(size=(200, 32))
    whole, between = plain_scores.covariance(x, labels)
    wrong = np.trace(np.linalg.inv(whole) * between)
    found = score('h_score', x, Targets('classes', labels))
    assert found == pytest.approx(np.trace(np.linalg.inv(whole) @ between))
    assert 0 < found <= 9 < wrong / 3


def test_transrate_weighs_classes_by_their_frequency():
    # The defect: an average over classes, each as much as another, on unbalanced labels.
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(5), [160, 10, 10, 10, 10])
    x = rng.normal(size=(200, 20)) + np.eye(5, 20)[labels]
    found = score('transrate', x, Targets('classes', labels))
    z = x - x.mean(0)
    z /= np.sqrt((z**2).sum(1).mean())
    rates = [plain_scores.coding_rate(z[labels == c], 1e-4) for c in range(5)]
    wrong = plain_scores.coding_rate(z, 1e-4) - np.mean(rates)
    assert found == pytest.approx(plain_scores.transrate(x, labels))
    assert wrong > 3 * found


@pytest.fixture(scope='module')
def sources():
    """500 examples of 10 classes: 2,048 columns of noise, and 128 that know the classes."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 500)
    noise = rng.normal(size=(500, 2048))
    informative = rng.normal(size=(500, 128)) + rng.normal(size=(10, 128))[labels]
    return noise, informative, Targets('classes', labels)


@pytest.mark.parametrize('name', ['logme', 'shrunk_h_score', 'ridge_loo'])
def test_much_noise_ranks_below_a_little_information(sources, name):
    noise, informative, targets = sources
    assert score(name, noise, targets) < score(name, informative, targets)


@pytest.mark.parametrize('name', ['h_score', 'transrate'])
def test_plain_scores_prefer_noise(sources, name):
    # By their definition, not by a defect; no recommendation may rest on them here.
    noise, informative, targets = sources
    assert score(name, noise, targets) > score(name, informative, targets)
