"""Runs that show, beside validation, how well their own training examples are fitted."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tljax.study.runs import Arm, RunSpec
from tljax.train.experiment import Experiment
from tljax.train.feed import Feed

SAMPLE = 1024  # training examples at most on which a run is evaluated

Values = list[float | None]


@dataclasses.dataclass(frozen=True)
class Curves:
    """What a run showed; None stands for what wasn't finite.

    Attributes:
      steps: at which it was evaluated.
      train: by metric, as the task gives it, on the run's own training examples.
      validation: the same on validation.
      seconds: spent in updates, compilation and evaluation left out.
      bad_step: the first step with a non-finite loss or gradient, or -1.
    """

    steps: list[int]
    train: dict[str, Values]
    validation: dict[str, Values]
    seconds: float
    bad_step: int


class Watched(Arm):
    """An arm whose runs are evaluated on their training examples too, and never on test.

    Args:
      experiment: the arm.
      eval_points: evaluations along a curve.
    """

    def __init__(self, experiment: Experiment, eval_points: int):
        super().__init__(experiment, eval_points)
        self._seen: list[tuple[dict[str, float], dict[str, float]]] = []
        self._sample: Feed | None = None

    def curves(self, spec: RunSpec, tick: Callable[[int], None]) -> Curves:
        """One run.

        Args:
          spec: which; a trial, so that test is not read.
          tick: called with the number of steps just taken.
        """
        assert spec.trial
        subset, _ = self.order(spec.seed)
        self._sample, self._seen = self.pool.of(sampled(subset)), []
        record = self.run(spec, tick)
        train, validation = zip(*self._seen, strict=True)
        return Curves(
            self.points, by_name(train), by_name(validation), record.seconds, record.bad_step
        )

    def points_of(self, spec: RunSpec) -> list[int]:
        """A trial is watched all along."""
        return self.points

    def metric(self, evaluate: Any, feed: Feed, params: Any, batch_stats: Any) -> float:
        """The headline metric on validation; all of both are noted."""
        assert self._sample is not None
        task = self.experiment.task
        train = task.metrics(self._sample.evaluate(self.evaluate, params, batch_stats))
        validation = task.metrics(feed.evaluate(evaluate, params, batch_stats))
        self._seen.append((train, validation))
        return validation[task.metric]


def sampled(subset: np.ndarray) -> np.ndarray:
    """Evenly spaced examples of a subset, as many as are evaluated.

    >>> sampled(np.arange(4096))[:3].tolist()
    [0, 4, 8]
    """
    if len(subset) <= SAMPLE:
        return subset
    return subset[np.arange(SAMPLE) * len(subset) // SAMPLE]


def by_name(rows: Any) -> dict[str, Values]:
    """One list a metric, from one dict an evaluation.

    >>> by_name([{'loss': 1.0}, {'loss': float('nan')}])
    {'loss': [1.0, None]}
    """
    return {
        name: [float(row[name]) if math.isfinite(row[name]) else None for row in rows]
        for name in rows[0]
    }
