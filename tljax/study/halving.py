"""Successive halving: many candidates for a few steps, the best of them for more."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from tljax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rung:
    """A round of successive halving.

    Attributes:
      candidates: how many take part.
      steps: that each of them trains, from its beginning and with a whole schedule.
    """

    candidates: int
    steps: int


def rungs(candidates: int, steps: int, rate: int, most: int = 64) -> tuple[Rung, ...]:
    """The rounds that lead from some candidates to a few with the whole number of steps.

    Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and
    hyperparameter optimization", figure 3; with the rate of Li et al. 2018, "Hyperband", algorithm
    1): in each round one candidate of `rate` goes on, with `rate` times the steps. A candidate
    begins again in each round, since its learning rate schedule is made for the number of steps:
    what is judged is a finished training, not the middle of a longer one.

    Args:
      candidates: of the first round.
      steps: of each candidate in the last round, of which there are `rate` at most.
      rate: 2 or more.
      most: rounds at most; with fewer than the candidates ask for, the last one has more of them.

    >>> rungs(18, 900, 3)
    (Rung(candidates=18, steps=100), Rung(candidates=6, steps=300), Rung(candidates=2, steps=900))
    >>> rungs(1, 900, 3)
    (Rung(candidates=1, steps=900),)
    """
    counts = [candidates]
    while counts[-1] > rate:
        counts.append(-(-counts[-1] // rate))
    counts = counts[:most]
    last = len(counts) - 1
    return tuple(
        Rung(count, max(round(steps / rate ** (last - index)), 1))
        for index, count in enumerate(counts)
    )


def cost(plan: Sequence[Rung], seeds: int = 1) -> int:
    """Steps of all runs.

    >>> cost(rungs(18, 900, 3))
    5400
    """
    return seeds * sum(rung.candidates * rung.steps for rung in plan)


def fitting(candidates: int, budget: int, plan_of: Callable[[int], int]) -> int:
    """The largest number of candidates, up to those that there are, within a budget.

    Args:
      candidates: that there are.
      budget: steps; 0 is no limit.
      plan_of: the cost of so many candidates.

    Raises:
      UserError: the budget is too small for one.

    >>> fitting(18, 3000, lambda count: cost(rungs(count, 900, 3)))
    4
    """
    if not budget:
        return candidates
    count = next((n for n in range(candidates, 0, -1) if plan_of(n) <= budget), 0)
    if not count:
        raise UserError(
            f'config.tune.budget ({budget} steps) is too small: one candidate alone takes '
            f'{plan_of(1)}, config.tune.seeds times config.train.steps and the learning-rate '
            'range tests. Raise it, or lower those.'
        )
    return count


def survivors(scores: Sequence[tuple[float, ...]], count: int) -> list[int]:
    """The indices of the best, best first; of equals, the first.

    Args:
      scores: the higher the better, compared element by element.
      count: how many.

    >>> survivors([(0.5,), (0.9,), (0.5,), (float('nan'),)], 3)
    [1, 0, 2]
    """
    sound = [tuple(-math.inf if math.isnan(x) else x for x in score) for score in scores]
    order = sorted(range(len(sound)), key=lambda index: sound[index], reverse=True)
    return order[:count]
