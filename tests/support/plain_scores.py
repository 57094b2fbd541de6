"""Scores written from the papers as plainly as can be: full matrices, loops, no shortcuts."""

import math
from decimal import Decimal, localcontext

import numpy as np

from tljax.ranking.spectrum import TOLERANCE


def covariance(features, labels):
    """cov(f) and cov(E[f | y]), divided by N: both D x D."""
    count, width = features.shape
    mean = features.mean(0)
    within, between = np.zeros((width, width)), np.zeros((width, width))
    for row, label in zip(features, labels, strict=True):
        expected = features[labels == label].mean(0)
        within += np.outer(row - mean, row - mean) / count
        between += np.outer(expected - mean, expected - mean) / count
    return within, between


def h_score(features, labels):
    if not np.ptp(features, 0).any():
        return 0.0
    whole, between = covariance(features, labels)
    return float(np.trace(np.linalg.pinv(whole, rcond=TOLERANCE, hermitian=True) @ between))


def ledoit_wolf(features):
    """The shrinkage of Ledoit and Wolf 2004, with the sums of their section 3.2."""
    count, width = features.shape
    centred = features - features.mean(0)
    whole = sum(np.outer(row, row) for row in centred) / count
    m = np.trace(whole) / width
    d2 = ((whole - m * np.eye(width)) ** 2).sum() / width
    b2 = sum(((np.outer(row, row) - whole) ** 2).sum() for row in centred) / width / count**2
    return min(b2 / d2, 1.0) if width > 1 else 0.0


def shrunk_h_score(features, labels):
    if not np.ptp(features, 0).any():
        return 0.0
    whole, between = covariance(features, labels)
    a, width = ledoit_wolf(features), features.shape[1]
    shrunk = (1 - a) * whole + a * np.trace(whole) / width * np.eye(width)
    # Of two examples nothing is shrunk, so that the covariance has no inverse.
    inverse = np.linalg.pinv(shrunk, rcond=TOLERANCE, hermitian=True)
    return float(np.trace(inverse @ ((1 - a) * between)))


def coding_rate(features, epsilon):
    count, width = features.shape
    inside = np.eye(width) + features.T @ features / (count * epsilon)
    return 0.5 * np.linalg.slogdet(inside)[1]


def transrate(features, labels, epsilon=1e-4, scale=True):
    centred = features - features.mean(0)
    if not np.ptp(features, 0).any():
        return 0.0
    if scale:
        centred = centred / np.sqrt((centred**2).sum(1).mean())
    rate = coding_rate(centred, epsilon)
    for label in np.unique(labels):
        own = centred[labels == label]
        rate -= len(own) / len(labels) * coding_rate(own, epsilon)
    return rate


def log_evidence(gram, y, alpha, beta):
    """log N(y; 0, I / beta + X X^T / alpha) in nats an example, to fifty digits.

    Args:
      gram: X X^T as lists of Decimals.
      y: (N,) floats.
      alpha: precision of the weights.
      beta: precision of the noise.
    """
    with localcontext() as context:
        context.prec = 50
        log_det, squares = _factor(gram, y, Decimal(beta) / Decimal(alpha))
        whole = Decimal(len(y)) * (Decimal(2 * math.pi) / Decimal(beta)).ln() + log_det
        return float(-(whole + Decimal(beta) * squares) / 2 / len(y))


def log_profile(gram, y, t, floor=0.0):
    """The same for alpha = t beta at the best beta, with `floor` added to the residual."""
    with localcontext() as context:
        context.prec = 50
        log_det, squares = _factor(gram, y, 1 / Decimal(t))
        beta = len(y) / (squares + Decimal(floor))
        whole = Decimal(len(y)) * ((Decimal(2 * math.pi) / beta).ln() + 1) + log_det
        return float(-whole / 2 / len(y))


def exact_gram(features):
    """X X^T as lists of Decimals, of floats taken as they are."""
    with localcontext() as context:
        context.prec = 50
        rows = [[Decimal(float(x)) for x in row] for row in features]
        return [[sum(a * b for a, b in zip(r, s, strict=True)) for s in rows] for r in rows]


def _factor(gram, y, weight):
    """log det C and y^T C^-1 y for C = I + weight X X^T, by L D L^T."""
    n = len(y)
    low = [[Decimal(0)] * n for _ in range(n)]
    pivots, solved = [], []
    for i in range(n):
        for j in range(i):
            inner = sum(low[i][k] * low[j][k] * pivots[k] for k in range(j))
            low[i][j] = (weight * gram[i][j] - inner) / pivots[j]
        inner = sum(low[i][k] ** 2 * pivots[k] for k in range(i))
        pivots.append(1 + weight * gram[i][i] - inner)
        solved.append(Decimal(float(y[i])) - sum(low[i][k] * solved[k] for k in range(i)))
    squares = sum(s * s / p for s, p in zip(solved, pivots, strict=True))
    return sum(p.ln() for p in pivots), squares


def ridge_left_out(features, columns, strengths):
    """Predictions of each example by ridge fits to the others: (strengths, N, C)."""
    count, width = features.shape
    centred = features - features.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    values = values[values > TOLERANCE * values[0]] if np.ptp(features, 0).any() else np.ones(1)
    out = np.zeros((len(strengths), *columns.shape))
    for s, strength in enumerate(strengths):
        for i in range(count):
            others = np.arange(count) != i
            mean, target = features[others].mean(0), columns[others].mean(0)
            x, y = features[others] - mean, columns[others] - target
            inside = x.T @ x + strength * values.mean() * np.eye(width)
            out[s, i] = target + (features[i] - mean) @ np.linalg.solve(inside, x.T @ y)
    return out
