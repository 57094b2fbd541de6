"""Ridge left out in closed form against as many fits as there are examples."""

import numpy as np
import plain_scores
import pytest
from hypothesis import assume, given
from ranking_problems import problems, quick

from tljax.ranking import Targets
from tljax.ranking.ridge_loo import STRENGTHS, ridge_loo


def plain(features, targets):
    """The strength chosen, and what it predicts without each example."""
    columns = targets.columns()
    spread = columns.std(0) if targets.kind != 'classes' else np.ones(columns.shape[1])
    predictions = plain_scores.ridge_left_out(features, columns, STRENGTHS)
    sums = (((predictions - columns) / spread) ** 2).sum((1, 2))
    return columns, predictions, sums


@quick
@given(problems('regression'))
def test_of_numbers(problem):
    features, targets = problem
    columns, predictions, sums = plain(features, targets)
    residuals = ((predictions[sums.argmin()] - columns) ** 2).sum(0)
    expected = (1 - residuals / ((columns - columns.mean(0)) ** 2).sum(0)).mean()
    assert ridge_loo(features, targets) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@quick
@given(problems('multilabel'))
def test_of_several_labels(problem):
    features, targets = problem
    columns, predictions, sums = plain(features, targets)
    residuals = ((predictions[sums.argmin()] - columns) ** 2).sum(0)
    expected = (1 - residuals / ((columns - columns.mean(0)) ** 2).sum(0)).mean()
    assert ridge_loo(features, targets) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@quick
@given(problems())
def test_of_labels(problem):
    features, targets = problem
    _, predictions, sums = plain(features, targets)
    order = np.sort(sums)
    best = predictions[sums.argmin()]
    ranked = np.sort(best, 1)
    # Ties are for rounding to decide.
    assume(order[1] - order[0] > 1e-6 * order[0] or np.ptp(predictions, 0).max() < 1e-6)
    assume((ranked[:, -1] - ranked[:, -2]).min() > 1e-6)
    expected = (best.argmax(1) == targets.present_N).mean()
    assert ridge_loo(features, targets) == pytest.approx(expected, abs=1e-9)


def test_it_finds_a_line_and_no_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 120))
    line, noise = x[:, 0] * 20 + x.sum(1), rng.normal(size=80)
    easy, labels = x * np.r_[30.0, np.ones(119)], Targets('classes', (x[:, 0] > 0).astype(int))
    assert ridge_loo(easy, Targets('regression', line)) > 0.8
    assert ridge_loo(x, Targets('regression', noise)) < 0.1
    assert ridge_loo(easy, labels) > 0.9


def test_without_anything_to_go_by_the_others_are_more_frequent():
    assert ridge_loo(np.ones((4, 2)), Targets('classes', [0, 0, 1, 1])) == 0.0
    assert ridge_loo(np.ones((4, 2)), Targets('classes', [0, 0, 0, 1])) == 0.75
