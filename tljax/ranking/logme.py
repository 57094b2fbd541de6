"""LogME: the evidence that a Bayesian linear model of the features gives to the targets."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import Features, Spectrum, as_features
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]

# Of a target's sum of squares. A target that features fit exactly would have an evidence without
# bound; what is left of one is not resolved below this.
LEAST_RESIDUAL = 1e-10
STEP, BEYOND = 0.25, 20.0  # of the search over log(alpha / beta)
GOLDEN = (5**0.5 - 1) / 2


class Evidence(NamedTuple):
    """The largest evidence of each target column, and where it is.

    Attributes:
      log_C: log evidence, divided by the number of examples.
      alpha_C: precision of the weights' prior; as large as searched where features say nothing.
      beta_C: precision of the noise.
    """

    log_C: Array
    alpha_C: Array
    beta_C: Array


def logme(features: npt.ArrayLike | Features, targets: Targets) -> float:
    """Log of maximum evidence (You et al. 2021, section 4, equations 2 and 3), mean over columns.

    Labels are regressed on as one-hot columns, several labels and regression targets as they are;
    columns that never vary are left out. As in the paper neither features nor targets are centred.
    The next token at each position is regressed on likewise, with a column for each token that
    occurs, as Bassignana et al. 2022 (Evidence > Intuition) do with the labels of words.

    Args:
      features: (N, D), or `Features` of them. N may be less than D, and the rank less than both.
      targets: classes, tokens, regression or multilabel.

    Returns:
      Nats per example and column. It does not change when features are rotated or scaled.

    Raises:
      ValueError: see `Features`.

    >>> x, y = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([[0.9], [-1.1], [1.0], [-1.0]])
    >>> round(logme(x, Targets('regression', y)), 3)
    0.287
    """
    return float(evidence(as_features(features).raw, targets.columns()).log_C.mean())


def evidence(spectrum: Spectrum, y_NxC: Array) -> Evidence:
    """The maximum over alpha and beta of each column's evidence.

    With weights w ~ N(0, I / alpha) and y ~ N(X w, I / beta), t = alpha / beta, X = U S V^T of rank
    K, z = U^T y, equation 2 of the paper becomes (the D - K directions without features cancel)

      log p = N/2 log beta - N/2 log 2 pi - beta/2 q(t) + 1/2 sum_K log(t / (t + s^2)),
      q(t) = |y|^2 - |z|^2 + sum_K z^2 t / (t + s^2),

    largest at beta = N / q(t). What is left depends on t alone and is searched from end to end, so
    that the result is the largest of the fixed points of the paper's algorithm 1, which
    stops at whichever it comes to. A target fitted exactly has no largest evidence; so of
    |y|^2 - |z|^2 at least 1e-10 |y|^2 is taken.

    Args:
      spectrum: of N examples.
      y_NxC: no column of zeros only.
    """
    count = spectrum.count
    values_K = spectrum.values_K
    z2_KxC = spectrum.left(y_NxC) ** 2
    whole_C = (y_NxC**2).sum(0)
    rest_C = np.maximum(whole_C - z2_KxC.sum(0), LEAST_RESIDUAL * whole_C)

    def profile(log_t_C: Array) -> tuple[Array, Array]:
        """Half the sum of logs, and q, at another t for each column."""
        kept_KxC = 1 / (1 + values_K[:, None] * np.exp(-log_t_C))
        return 0.5 * np.log(kept_KxC).sum(0), rest_C + (kept_KxC * z2_KxC).sum(0)

    def height(log_t_C: Array) -> Array:
        logs_C, q_C = profile(log_t_C)
        return logs_C - count / 2 * np.log(q_C)

    ends = np.log(values_K[[-1, 0]]) if spectrum.rank else np.zeros(2)
    grid_G = np.arange(ends[0] - BEYOND, ends[1] + BEYOND, STEP)
    kept_GxK = 1 / (1 + values_K * np.exp(-grid_G)[:, None])
    heights_GxC = 0.5 * np.log(kept_GxK).sum(1)[:, None]
    heights_GxC = heights_GxC - count / 2 * np.log(rest_C + kept_GxK @ z2_KxC)
    start_C = grid_G[heights_GxC.argmax(0)]
    log_t_C = _highest(height, start_C - STEP, start_C + STEP)
    logs_C, q_C = profile(log_t_C)
    beta_C = count / q_C
    log_C = logs_C + count / 2 * (np.log(beta_C / (2 * np.pi)) - 1)
    return Evidence(log_C / count, np.exp(log_t_C) * beta_C, beta_C)


def _highest(height, low_C: Array, high_C: Array) -> Array:
    """Golden-section search for the maximum of every column at once (Kiefer 1953)."""
    inner_C, outer_C = high_C - GOLDEN * (high_C - low_C), low_C + GOLDEN * (high_C - low_C)
    inner, outer = height(inner_C), height(outer_C)
    for _ in range(28):  # 0.5 becomes 7e-7, whose square is what the height is off by
        left = inner > outer
        low_C, high_C = np.where(left, low_C, inner_C), np.where(left, outer_C, high_C)
        new_C = np.where(
            left, high_C - GOLDEN * (high_C - low_C), low_C + GOLDEN * (high_C - low_C)
        )
        at_new = height(new_C)
        inner_C, outer_C = np.where(left, new_C, outer_C), np.where(left, inner_C, new_C)
        inner, outer = np.where(left, at_new, outer), np.where(left, inner, at_new)
    return (low_C + high_C) / 2
