"""LEEP, NCE, NLEEP, GBC, PARC, nearest neighbours and the logistic probe, against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from ranking_problems import problems, quick

from tljax.ranking import Targets
from tljax.ranking.gbc import FLOOR, gbc
from tljax.ranking.knn import knn
from tljax.ranking.leep import leep, nce
from tljax.ranking.logistic_cv import logistic_cv
from tljax.ranking.nleep import nleep
from tljax.ranking.parc import parc
from tljax.ranking.targets import NotDefined


def said(count, classes, seed):
    table = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), count)
    return table / table.sum(1, keepdims=True)


def plain_leep(table, labels):
    total = 0.0
    for row, label in zip(table, labels, strict=True):
        expected = 0.0
        for z in range(table.shape[1]):
            of_z = sum(table[i, z] for i in range(len(table)))
            of_both = sum(table[i, z] for i in range(len(table)) if labels[i] == label)
            expected += row[z] * of_both / of_z if of_z else 0.0
        total += math.log(expected)
    return total / len(table)


@quick
@given(problems())
def test_leep_as_two_loops(problem):
    labels = problem.targets.values
    table = said(len(labels), 4, seed=len(labels))
    assert leep(table, problem.targets) == pytest.approx(plain_leep(table, labels), abs=1e-9)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = Targets('classes', labels[order], problem.targets.classes)
    assert leep(table[order], shuffled) == pytest.approx(leep(table, problem.targets), abs=1e-9)


def test_leep_has_its_logarithm():
    """A published version left it out: its value was above 0."""
    labels = np.random.default_rng(0).integers(0, 3, 50)
    assert leep(said(50, 4, 2), Targets('classes', labels)) < 0


def test_nce_is_a_conditional_entropy():
    rng = np.random.default_rng(3)
    labels, table = rng.integers(0, 3, 60), said(60, 4, 5)
    hard, expected = table.argmax(1), 0.0
    for z in range(4):
        for y in range(3):
            both = ((hard == z) & (labels == y)).mean()
            expected += both * math.log(both / (hard == z).mean()) if both else 0.0
    assert nce(table, Targets('classes', labels)) == pytest.approx(expected, abs=1e-12)


def plain_gbc(features, labels, components):
    centred = features - features.mean(0)
    _, lengths, right = np.linalg.svd(centred, full_matrices=False)
    kept = [k for k in range(min(components, len(lengths))) if lengths[k] > 1e-6 * lengths[0]]
    x = centred @ right[kept].T
    floor = FLOOR * lengths[0] ** 2 / len(x)
    classes = np.unique(labels)
    variances = {c: x[labels == c].var(0) for c in classes}
    several = [variances[c] for c in classes if (labels == c).sum() > 1]
    for c in classes:
        if (labels == c).sum() == 1 and several:
            variances[c] = np.mean(several, 0)
    total = 0.0
    for a in classes:
        for b in classes:
            if a == b:
                continue
            one, other = np.maximum(variances[a], floor), np.maximum(variances[b], floor)
            both = np.diag((one + other) / 2)
            gap = x[labels == a].mean(0) - x[labels == b].mean(0)
            distance = gap @ np.linalg.inv(both) @ gap / 8 + 0.5 * (
                np.linalg.slogdet(both)[1] - 0.5 * (np.log(one).sum() + np.log(other).sum())
            )
            total -= math.exp(-distance)
    return total


@pytest.mark.parametrize(('count', 'width'), [(40, 6), (12, 30), (20, 20)])
def test_gbc_as_full_matrices(count, width):
    rng = np.random.default_rng(count)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 2, count - 3)])  # one of the last class
    x = rng.normal(size=(count, width)) + labels[:, None]
    found = gbc(x, Targets('classes', labels), 5)
    assert found == pytest.approx(plain_gbc(x, labels, 5), rel=1e-6)
    turned, _ = np.linalg.qr(rng.normal(size=(width, width)))
    assert gbc(1e3 * x @ turned + 5, Targets('classes', labels), 5) == pytest.approx(found, 1e-6)


@pytest.mark.parametrize('components', [0, 3])
def test_parc_as_loops(components):
    from scipy.stats import rankdata

    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 25)
    x = rng.normal(size=(25, 8)) + 2 * np.eye(8)[labels]
    seen = x
    if components:
        centred = x - x.mean(0)
        seen = centred @ np.linalg.svd(centred)[2][:components].T
    far, other = [], []
    for i in range(25):
        for j in range(i):
            a, b = (seen[k] - (0 if components else seen[k].mean()) for k in (i, j))
            far.append(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
            other.append(1 - np.corrcoef(np.eye(3)[labels[i]], np.eye(3)[labels[j]])[0, 1])
    # Rounded, so that distances that are equal count as ties.
    ranks = rankdata(np.round(far, 9)), rankdata(np.round(other, 9))
    expected = 100 * np.corrcoef(*ranks)[0, 1]
    assert parc(x, Targets('classes', labels), components) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('neighbours', [1, 3, 50])
def test_nearest_neighbours_as_loops(neighbours):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 30)
    x = rng.normal(size=(30, 4)) + labels[:, None] + 100.0
    right = 0
    for i in range(30):
        distances = [(np.linalg.norm(x[i] - x[j]), j) for j in range(30) if j != i]
        votes = [labels[j] for _, j in sorted(distances)[:neighbours]]
        most = max(votes.count(label) for label in votes)
        right += next(label for label in votes if votes.count(label) == most) == labels[i]
    assert knn(x, Targets('classes', labels), neighbours) == pytest.approx(right / 30)


def test_what_tells_classes_apart_scores_above_noise():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(4), 25)
    targets, noise = Targets('classes', labels), rng.normal(size=(100, 16))
    told = noise + 4 * np.eye(16)[labels]
    for score in (nleep, gbc, parc, knn, logistic_cv):
        assert score(told, targets) > score(noise, targets), score
        assert score(told, targets) == score(told, targets)


@quick
@given(problems())
def test_any_features_give_a_number(problem):
    features, targets = problem
    low = -math.log(len(targets.values)) * 10
    assert low < nleep(features, targets) <= 1e-12
    count = len(np.unique(targets.values))
    assert -count * (count - 1) - 1e-6 <= gbc(features, targets) <= 0
    assert -100.0001 <= parc(features, targets) <= 100.0001
    assert 0 <= knn(features, targets) <= 1
    if (np.bincount(targets.values) > 1).sum() > 1:
        assert math.isfinite(logistic_cv(features, targets))
    else:
        with pytest.raises(NotDefined, match='two examples'):
            logistic_cv(features, targets)


def test_a_probe_is_judged_on_what_it_was_not_fitted_to():
    """Noise that a probe can learn by heart tells it nothing of held-out labels."""
    rng = np.random.default_rng(9)
    labels = np.repeat([0, 1], 30)
    x = rng.normal(size=(60, 200))
    assert logistic_cv(x, Targets('classes', labels)) < math.log(0.5)
