"""The runs of a study: one arm, many seeds and learning rates, one compiled step.

One after another on a CPU, where XLA makes mapped convolutions and loops slower; as one program
(mapped over runs, scanned over steps; see `tljax.study.mapped`) on an accelerator.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tljax import mesh as mesh_lib
from tljax import trees
from tljax.data import Order
from tljax.train import experiment as experiment_lib
from tljax.train import norms, programs, reference
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment
from tljax.train.feed import Feed, shapes_of
from tljax.train.prefixed import PhaseRunner
from tljax.train.programs import compiled_eval
from tljax.train.state import TrainState, own_buffers, served
from tljax.train.stopwatch import Stopwatch


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run of one arm.

    Attributes:
      seed: of the subset, the initialisation and the order.
      lr: peak learning rate.
      trial: a tuning run, evaluated once on validation and never on test.
    """

    seed: int
    lr: float
    trial: bool


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run showed.

    Attributes:
      steps: the steps at which validation was evaluated.
      validation: the task's headline metric there, as the task gives it.
      test: the same on the test split after the last step; None for trials.
      seconds: spent in updates, compilation and evaluation left out.
      bad_step: the first step with a non-finite loss or gradient, or -1.
    """

    steps: list[int]
    validation: list[float]
    test: float | None
    seconds: float
    bad_step: int


def evaluation_steps(steps: int, count: int) -> list[int]:
    """Where a learning curve is evaluated: growing by a ratio at first, then evenly.

    The ratio shows the start, the even steps show the plateau.

    Args:
      steps: of the run; the first point is 0, the last `steps`.
      count: about how many points; fewer where the run is short.

    >>> evaluation_steps(200, 12)
    [0, 1, 2, 4, 8, 16, 32, 64, 97, 130, 163, 200]
    """
    gap = steps / max(count // 2, 1)
    ratio = max((2 * gap) ** (2 / count), 1.1)
    points = [0, 1]
    while points[-1] < steps:
        last = points[-1]
        following = max(round(min(last * ratio, last + gap)), last + 1)
        points.append(following if steps - following > gap / 2 else steps)
    return points


class Arm:
    """One arm's compiled programs and the data on its devices.

    Args:
      experiment: the arm.
      eval_points: evaluations along a curve.
    """

    def __init__(self, experiment: Experiment, eval_points: int):
        config = experiment.config
        self.experiment, self.mesh = experiment, mesh_lib.data_mesh()
        mesh_lib.check_batch_size(self.mesh, config.train.batch_size)
        self.points = evaluation_steps(config.train.steps, eval_points)
        self.pool = Feed(experiment.data.split('train'), self.mesh, views=experiment.views)
        self.validation = Feed(experiment.data.split('validation'), self.mesh)
        self.evaluate = compiled_eval(experiment)
        self.programs = [programs.program(experiment, p) for p in experiment.phases]
        self.init = jax.jit(experiment.init)
        self.runners = [PhaseRunner(experiment, p, self.evaluate) for p in self.programs]
        self._warm: set[Any] = set()
        self.mapped: dict[Any, Any] = {}  # programs that `tljax.study.mapped` compiled

    @functools.cached_property
    def test(self) -> Feed:
        """The test split, read when the first run of the study has taken its last step."""
        return Feed(self.experiment.data.split('test'), self.mesh)

    def order(self, seed: int) -> tuple[np.ndarray, Order]:
        """A seed's examples, and the order in which they come."""
        return self.experiment.order(seed)

    def variables(self, seed: int) -> experiment_lib.Variables:
        """A seed's variables before the first update."""
        init_key, _ = experiment_lib.run_keys(seed)
        variables = self.init(init_key, self.experiment.loaded)
        variables = mesh_lib.put_replicated(self.mesh, variables)
        if not norms.wanted(self.experiment):
            return variables
        subset, order = self.order(seed)
        return norms.adapted(self.estimate, variables, self.pool.of(subset), order)

    @functools.cached_property
    def estimate(self) -> norms.Estimate:
        """Batch statistics of one batch."""
        return norms.compiled_estimate(self.experiment)

    def shared(self, index: int) -> bool:
        """Whether what a phase freezes is the source's in every run, so that one copy serves all.

        It is, if it was loaded and no phase before has trained it, or moved its statistics.
        """
        phases = self.programs[: index + 1]
        stats = self.experiment.model.shapes()['batch_stats']
        still = [step_lib.frozen_modules(p.decisions, stats) for p in phases]
        frozen = [path for path, value in phases[-1].decisions.items() if value is None]
        modules = [path for path in trees.flatten(stats) if path.rpartition('/')[0] in still[-1]]
        return (
            not norms.wanted(self.experiment)
            and not reference.looks_at_data(self.experiment.setting)
            and all(path in self.experiment.loaded for path in [*frozen, *modules])
            and all(p.decisions[path] is None for p in phases for path in frozen)
            and all(path.rpartition('/')[0] in s for s in still for path in modules)
        )

    def metric(self, evaluate: Any, feed: Feed, params: Any, batch_stats: Any) -> float:
        """The task's headline metric over a feed."""
        sums = feed.evaluate(evaluate, params, batch_stats)
        task = self.experiment.task
        return task.metrics(sums)[task.metric]

    def run(self, spec: RunSpec, tick: Callable[[int], None]) -> RunRecord:
        """One run by itself.

        Args:
          spec: which.
          tick: called with the number of steps just taken.
        """
        points = self.points_of(spec)
        subset, order = self.order(spec.seed)
        variables = self.variables(spec.seed)
        _, train_key = experiment_lib.run_keys(spec.seed)
        params = variables['params']
        state = self.programs[0].start(variables, spec.lr, train_key)
        curve: list[float] = []
        watch = Stopwatch()
        for index, runner in enumerate(self.runners):
            program = runner.program
            if index:
                state = program.enter(state, params)
            frozen = program.split(params)[1]
            state = mesh_lib.put_replicated(self.mesh, own_buffers(state))
            with watch.paused(state):
                ready = runner.ready(
                    frozen,
                    state.batch_stats,
                    self.pool.of(subset),
                    self.validation,
                    shared=self.shared(index),
                )
            watch.add(ready.feed.seconds)
            batches = ready.feed.batches(order, program.phase.first, program.phase.end)
            for step in range(program.phase.first, program.phase.end):
                data, indices = next(batches)
                if (index, shapes_of(data)) not in self._warm:
                    with watch.paused(state):
                        ready.step(own_buffers(state), ready.fixed, data, indices)
                    self._warm.add((index, shapes_of(data)))
                if step in points:
                    with watch.paused(state):
                        shown = shown_of(state, frozen)
                        curve.append(self.metric(ready.evaluate, ready.validation, *shown))
                state, _ = ready.step(state, ready.fixed, data, indices)
                tick(1)
            params = trees.combine(state.trainable, frozen)
        seconds = watch.read(state)
        shown = shown_of(state, frozen)
        curve.append(self.metric(ready.evaluate, ready.validation, *shown))
        test = None
        if not spec.trial:
            test = self.metric(self.evaluate, self.test, *shown)
        return RunRecord(points, curve, test, seconds, int(state.bad_step))

    def points_of(self, spec: RunSpec) -> list[int]:
        """The steps at which a run is evaluated on validation: a trial only at its end."""
        return [self.experiment.config.train.steps] if spec.trial else self.points


def shown_of(state: TrainState, frozen: trees.Tree) -> tuple[trees.Tree, trees.Tree]:
    """The parameters and statistics that are evaluated: averages where they are kept."""
    trainable, batch_stats = served(state)
    return trees.combine(trainable, frozen), batch_stats
