"""H-score and its shrunk form against full matrices."""

import numpy as np
import plain_scores
import pytest
from hypothesis import given
from ranking_problems import problems, quick
from sklearn.covariance import ledoit_wolf_shrinkage

from tljax.ranking import Targets
from tljax.ranking import spectrum as spectrum_lib
from tljax.ranking.h_score import h_score, shrinkage, shrunk_h_score


@quick
@given(problems())
def test_as_full_matrices(problem):
    features, targets = problem
    found, shrunk = h_score(features, targets), shrunk_h_score(features, targets)
    assert found == pytest.approx(plain_scores.h_score(features, targets.values), abs=1e-6)
    plain = plain_scores.shrunk_h_score(features, targets.values)
    assert shrunk == pytest.approx(plain, abs=1e-6)
    assert 0 <= shrunk <= found + 1e-9
    rank = np.linalg.matrix_rank(features - features.mean(0)) if np.ptp(features, 0).any() else 0
    assert found <= min(targets.present_N.max(), rank) + 1e-6


@pytest.mark.parametrize('shape', [(50, 7), (9, 30), (12, 12)])
def test_shrinkage_is_ledoit_and_wolfs(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    expected = ledoit_wolf_shrinkage(x)
    assert 0 < expected < 1
    assert shrinkage(spectrum_lib.of(x, centre=True)) == pytest.approx(expected)
    assert plain_scores.ledoit_wolf(x) == pytest.approx(expected)


def test_an_invertible_map_changes_nothing():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 5)), Targets('classes', rng.integers(0, 3, 60))
    mapped = x @ (rng.normal(size=(5, 5)) + 3 * np.eye(5)) + 7
    assert h_score(mapped, y) == pytest.approx(h_score(x, y))


def test_more_features_than_examples_fit_anything():
    rng = np.random.default_rng(2)
    y = Targets('classes', rng.integers(0, 4, 30))
    assert h_score(rng.normal(size=(30, 50)), y) == pytest.approx(3.0)


def test_two_examples_leave_nothing_to_shrink():
    x = np.array([[0.12573022, -0.13210486], [0.64042265, 0.10490012]])
    y = Targets('classes', [0, 1])
    assert shrinkage(spectrum_lib.of(x, centre=True)) == pytest.approx(0, abs=1e-12)
    assert [shrunk_h_score(x, y), h_score(x, y)] == pytest.approx([1.0, 1.0])
    assert plain_scores.shrunk_h_score(x, y.values) == pytest.approx(1.0)
    assert plain_scores.shrunk_h_score(1e-8 * x, y.values) == pytest.approx(1.0)
