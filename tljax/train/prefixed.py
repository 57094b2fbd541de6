"""A phase ready to run: the step as it is, or what is left of it behind a frozen prefix."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tljax import trees
from tljax.train import features
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment
from tljax.train.feed import Feed
from tljax.train.phase_prefix import Decision, PhasePrefix, in_order
from tljax.train.programs import PhaseProgram
from tljax.train.reference import RunReference
from tljax.transfer import prefix


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a run needs in a phase.

    Attributes:
      step: `step(state, fixed, data, indices) -> state, metrics`, jitted.
      fixed: what the step reads and never writes.
      feed: training examples, or their features.
      evaluate: `evaluate(params, batch_stats, data, indices, weight) -> sums`, jitted.
      validation: its examples, or their features.
      eval_fixed: what an evaluation of features reads and training never writes; None where no
        features are kept.
    """

    step: Callable[..., Any]
    fixed: Any
    feed: Feed
    evaluate: Callable[..., Any]
    validation: Feed
    eval_fixed: Any = None


class PhaseRunner:
    """One phase of an arm, its programs compiled once for all runs.

    Args:
      experiment: the arm.
      program: the phase.
      evaluate: the arm's jitted evaluation, for where no features are kept.
    """

    def __init__(self, experiment: Experiment, program: PhaseProgram, evaluate: Any):
        self.experiment, self.program, self.plain_evaluate = experiment, program, evaluate
        self._tables: dict[str, features.Table] = {}
        self._disk: features.Disk | None = None
        self.reference = RunReference(experiment)

    @functools.cached_property
    def plain_step(self) -> Any:
        def run_step(state, fixed, data, indices):
            return self.program.step(state, fixed, step_lib.gather(data, indices))

        return jax.jit(run_step, donate_argnums=0)

    @functools.cached_property
    def kept(self) -> PhasePrefix | None:
        """The cut programs; None where there can be none."""
        if self.why_not():
            return None
        return PhasePrefix(self.experiment, self.program)

    def why_not(self) -> str:
        """What rules a prefix out before anything is traced; '' if nothing does."""
        if self.experiment.config.prefix.cache == 'off':
            return 'config.prefix.cache is off'
        if all(value is not None for value in self.program.decisions.values()):
            return 'every leaf is trained'
        if jax.process_count() > 1:
            return 'several processes would each need the features of all examples'
        return ''

    def decide(self, examples: int) -> Decision:
        """Whether this phase keeps features of so many training examples, and why."""
        if self.kept is None:
            return Decision(False, self.why_not())
        return self.kept.decide(examples)

    def maps_well(self, examples: int) -> bool:
        """Whether what is left behind kept features is matrix products, as of a linear probe.

        Those are faster on a CPU too when runs are mapped; convolutions are slower.
        """
        if not self.decide(examples).worth:
            return False
        assert self.kept is not None
        return self.kept.train.is_products()

    def ready(
        self,
        frozen: trees.Tree,
        batch_stats: trees.Tree,
        feed: Feed,
        validation: Feed,
        *,
        shared: bool = False,
    ) -> Ready:
        """What a run needs in this phase.

        Args:
          frozen: the run's frozen half.
          batch_stats: at the phase's beginning.
          feed: its training examples.
          validation: its validation examples.
          shared: whether frozen half and statistics are the same in every run, so that features
            are too.
        """
        if not self.decide(len(feed.subset)).worth:
            fixed = self.program.fixed(frozen, self.reference(feed))
            return Ready(self.plain_step, fixed, feed, self.plain_evaluate, validation)
        cut = self.kept
        assert cut is not None
        if not shared:
            self._tables = {}
        constant = cut.constant(frozen, batch_stats, self.reference(feed))
        trained = self._features('train', cut.train, cut.size, constant, feed)
        size = validation.eval_batch
        evaluation = self.evaluation(size)
        eval_constant = (frozen, constant[1])
        validated = self._features('validation', evaluation, size, eval_constant, validation)
        folded = jax.jit(evaluation.fold)(eval_constant)
        evaluate = functools.partial(self._evaluate(evaluation), folded)
        fixed = jax.jit(cut.train.fold)(constant)
        return Ready(self._step, fixed, trained, evaluate, validated, folded)

    @functools.cached_property
    def _step(self) -> Any:
        assert self.kept is not None
        step = self.kept.step

        def run_step(state, folded, data, indices):
            return step(state, folded, step_lib.gather(data, indices))

        return jax.jit(run_step, donate_argnums=0)

    @functools.cache  # noqa: B019 - a runner lives as long as its study
    def evaluation(self, size: int) -> prefix.Cut:
        """The evaluation of so many examples, cut."""
        assert self.kept is not None
        return self.kept.evaluation(size)

    def sums(self, cut: prefix.Cut, folded: Any, trainable: Any, stats: Any, batch: Any) -> Any:
        """The task's sums over a batch of features with `weight`; not jitted."""
        assert self.kept is not None
        _, moving = self.kept.still_and_moving(stats)
        return cut.suffix((trainable, moving, batch['weight']), folded, in_order(batch))

    @functools.cache  # noqa: B019
    def _evaluate(self, cut: prefix.Cut) -> Any:
        def evaluate(folded, params, batch_stats, data, indices, weight):
            trainable, _ = self.program.split(params)
            batch = {**step_lib.gather(data, indices), 'weight': weight}
            return self.sums(cut, folded, trainable, batch_stats, batch)

        return jax.jit(evaluate)

    def _features(self, name: str, cut: prefix.Cut, size: int, constant: Any, feed: Feed) -> Feed:
        """A feed of features in the place of one of examples."""
        assert self.kept is not None
        shapes, prefix_config = self.kept.shapes(cut), self.experiment.config.prefix
        views = feed.views
        chosen = feed.subset
        if views:
            chosen = (chosen[:, None] * views + np.arange(views, dtype=np.int32)).ravel()
        nbytes = len(chosen) * sum(s.size * s.dtype.itemsize for s in shapes.values())
        place = features.place_of(nbytes, prefix_config.store)
        if name not in self._tables:
            directory, key = None, ''
            if place == 'disk' or prefix_config.dir:
                key = self._key(name, cut, constant, feed)
                self._disk = self._disk or features.Disk.at(prefix_config.dir)
                directory = self._disk.path / key[:20]

            @jax.jit
            def run(constant, data, indices):
                values = cut.prefix(constant, step_lib.gather(data, indices))
                pairs = zip(shapes.items(), values, strict=True)
                return {name: value.astype(shape.dtype) for (name, shape), value in pairs}

            def compute(chosen: np.ndarray) -> Mapping[str, Any]:
                if views:
                    chosen = np.stack(np.divmod(chosen, views), 1).astype(np.int32)
                return jax.device_get(run(constant, *feed.at(chosen)))

            compute(np.zeros(size, np.int32))  # compiles, so that the table's time leaves it out
            length = len(feed.split) * max(views, 1)
            self._tables[name] = features.Table(shapes, compute, size, length, directory, key)
        table = self._tables[name]
        table.ensure(chosen)
        return features.FeatureFeed(table, chosen, feed.mesh, place, feed.at_once, views)

    def _key(self, name: str, cut: prefix.Cut, constant: Any, feed: Feed) -> str:
        """Tells features apart: by weights, data, preprocessing, views, program and dtype."""
        assert self.kept is not None
        data = self.experiment.data
        held = feed.split.arrays().values() if feed.split.in_memory else ()
        return features.digest(
            f'{name} {data.full_name} {data.record(self.experiment.config.seed)}',
            f'{self.experiment.config.data} {self.kept.dtype} {feed.views} {jax.__version__}',
            cut.fingerprint(),
            feed.split.labels(),
            *held,
            *jax.tree.leaves(jax.device_get(constant)),
        )
