"""What a ranking was worth, once its sources have been trained: tau and regret."""

from collections.abc import Callable, Sequence

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


def over_targets(
    statistic: Callable[[Array, Array], float | None],
    pairs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    seed: int = 0,
) -> Measure:
    """The mean over targets, with its 95 % percentile bootstrap over each target's sources.

    Args:
      statistic: `weighted_tau` or `regret`.
      pairs: for each target scores and results of its sources.
      seed: of the drawing.

    Targets and draws in which the statistic is not defined are left out.
    """
    known = [(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    values = [statistic(a, b) for a, b in known]
    defined = [value for value in values if value is not None]
    if not defined:
        return unmeasured(len(pairs), f'an order takes {FEWEST} sources that differ')
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        found = []
        for scores, truth in known:
            draw = rng.integers(0, len(scores), len(scores))
            value = statistic(scores[draw], truth[draw])
            found += [] if value is None else [value]
        means += [np.mean(found)] if found else []
    low, high = np.percentile(means, [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    note = f'over {len(defined)} targets'
    return Measure(float(np.mean(defined)), float(low), float(high), len(defined), note)


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
