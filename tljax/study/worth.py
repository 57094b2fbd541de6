"""What a ranking was worth, once its sources have been trained: tau and regret."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tljax.study.statistics import LEVEL, Measure, unmeasured

Array = npt.NDArray[np.float64]
FEWEST = 3  # sources from which an order says anything
RESAMPLES = 9999


def weighted_tau(scores_S: npt.ArrayLike, truth_S: npt.ArrayLike) -> float | None:
    """Weighted Kendall tau (Vigna 2015, section 3): 1 is the same order, -1 its reverse.

    Exchanges weigh more near the top: hyperbolic weights, added, over both orders.

    Returns:
      None for fewer than three sources, or where all scores, or all results, are the same.

    >>> round(weighted_tau([3.0, 2.0, 1.0], [0.9, 0.5, 0.7]), 3)
    0.545
    """
    from scipy.stats import weightedtau

    scores, truth = np.asarray(scores_S, float), np.asarray(truth_S, float)
    if len(scores) < FEWEST or np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return None
    return float(weightedtau(scores, truth).statistic)


def regret(scores_S: npt.ArrayLike, truth_S: npt.ArrayLike) -> float:
    """Top-1 regret: how far the source of the highest score ends below the best one.

    In the unit of `truth`, 0 or more; sources that tie for the highest count with their mean.

    >>> regret([3.0, 2.0, 1.0], [0.75, 0.5, 1.0])
    0.25
    """
    scores, truth = np.asarray(scores_S, float), np.asarray(truth_S, float)
    return float(truth.max() - truth[scores == scores.max()].mean())


def over_sources(
    statistic: Callable[[Array, Array], float | None],
    scores_S: npt.ArrayLike,
    truth_S: npt.ArrayLike,
    seed: int = 0,
) -> Measure:
    """`weighted_tau` or `regret` with its 95 % percentile bootstrap over sources.

    Draws of sources in which the statistic is not defined are left out, and the note says how
    many; with few sources the interval is wide, and says so.
    """
    scores, truth = np.asarray(scores_S, float), np.asarray(truth_S, float)
    value = statistic(scores, truth)
    if value is None:
        return unmeasured(len(scores), f'an order takes {FEWEST} sources that differ')
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(scores), (RESAMPLES, len(scores)))
    found = [statistic(scores[draw], truth[draw]) for draw in draws]
    defined = np.array([one for one in found if one is not None])
    note = f'over {len(scores)} sources'
    if len(defined) < len(found):
        note += f'; not defined in {1 - len(defined) / len(found):.0%} of the draws'
    low, high = np.percentile(defined, [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    return Measure(value, float(low), float(high), len(scores), note)
