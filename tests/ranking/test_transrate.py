"""TransRate against determinants of full matrices."""

import numpy as np
import plain_scores
import pytest
from hypothesis import given
from ranking_problems import problems, quick

from tljax.ranking import Targets
from tljax.ranking.transrate import transrate


@quick
@given(problems())
def test_as_full_matrices(problem):
    features, targets = problem
    found = transrate(features, targets)
    assert found == pytest.approx(plain_scores.transrate(features, targets.values), abs=1e-6)
    assert found >= 0


def test_without_scaling_it_is_the_papers_equation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    found = [transrate(x * by, Targets('classes', y), 0.01, scale=False) for by in (1.0, 0.1)]
    plain = [plain_scores.transrate(x * by, y, 0.01, scale=False) for by in (1.0, 0.1)]
    np.testing.assert_allclose(found, plain)
    assert abs(found[0] - found[1]) > 0.1


def test_a_distortion_is_positive():
    with pytest.raises(ValueError, match='epsilon is 0'):
        transrate([[1.0], [2.0]], Targets('classes', [0, 1]), epsilon=0)
