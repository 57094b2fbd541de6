"""Ridge and logistic probes beside scikit-learn's, for every strength and seed in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from tljax.study import linear

STRENGTHS = jnp.array([1e-3, 1e-1, 3.0])


def examples(n, d, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = rng.normal(size=(classes, d))
    features = centres[labels] + rng.normal(size=(n, d)) + 2.0
    return features.astype(np.float32), labels


@pytest.mark.parametrize(('n', 'd'), [(40, 7), (20, 50), (12, 12)])
def test_ridge_is_the_library_one(n, d):
    x, labels = examples(n, d)
    y = np.eye(3, dtype=np.float32)[labels]
    ours = jax.jit(linear.ridge)(x, y, STRENGTHS)
    for index, strength in enumerate(STRENGTHS):
        theirs = Ridge(alpha=float(strength) * n).fit(x.astype(np.float64), y)
        np.testing.assert_allclose(ours.kernel[index], theirs.coef_.T, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(ours.bias[index], theirs.intercept_, rtol=2e-3, atol=2e-3)


def test_ridge_with_features_that_depend_on_each_other():
    x, labels = examples(30, 4)
    x = np.concatenate([x, x, np.ones((30, 1), np.float32)], 1)
    y = np.eye(3, dtype=np.float32)[labels]
    ours = linear.ridge(x, y, STRENGTHS)
    theirs = Ridge(alpha=float(STRENGTHS[0]) * 30).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(ours.kernel[0], theirs.coef_.T, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize(('n', 'd'), [(60, 5), (25, 40)])
def test_logistic_is_the_library_one(n, d):
    x, labels = examples(n, d)
    (x,) = linear.standardised(jnp.asarray(x))
    ours = jax.jit(linear.logistic, static_argnums=2)(x, labels, 3, STRENGTHS)
    for index, strength in enumerate(STRENGTHS):
        theirs = LogisticRegression(C=1 / (float(strength) * n), tol=1e-8, max_iter=10_000)
        theirs.fit(np.asarray(x, np.float64), labels)
        expected = theirs.predict_log_proba(np.asarray(x, np.float64))
        got = jax.nn.log_softmax(ours.logits(x)[index])
        np.testing.assert_allclose(jnp.exp(got), np.exp(expected), atol=1e-3)


def test_seeds_and_strengths_are_mapped_in_one_program():
    sets = [examples(30, 6, seed=seed) for seed in range(4)]
    x, labels = (
        jnp.stack([jnp.asarray(part) for part in parts]) for parts in zip(*sets, strict=True)
    )
    run = jax.jit(jax.vmap(lambda x, y: linear.logistic(x, y, 3, STRENGTHS)))
    together = run(x, labels)
    assert together.kernel.shape == (4, 3, 6, 3)
    alone = linear.logistic(x[2], labels[2], 3, STRENGTHS)
    np.testing.assert_allclose(together.kernel[2], alone.kernel, rtol=1e-2, atol=1e-3)


def test_standardised_features_have_no_scale_and_constants_stay_finite():
    train, other = jnp.array([[1.0, 5.0], [3.0, 5.0]]), jnp.array([[2.0, 6.0]])
    a, b = linear.standardised(train, other)
    np.testing.assert_allclose(a, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(b, [[0, 1]])
