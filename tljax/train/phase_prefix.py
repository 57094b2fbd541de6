"""One phase's train step and evaluation, cut behind their frozen prefix, and whether that pays."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax import trees
from tljax.train import features
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment
from tljax.train.programs import PhaseProgram
from tljax.transfer import prefix
from tljax.transfer.prefix import kinds

WORTH = 0.1  # share of a phase's operations that a prefix must save


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a phase keeps features, and why.

    Attributes:
      worth: whether it does.
      reason: in words.
      saved: share of the phase's matrix products and convolutions that aren't done.
      nbytes: of the training features.
    """

    worth: bool
    reason: str
    saved: float = 0.0
    nbytes: int = 0


class PhasePrefix:
    """The train step and the evaluation of one phase, cut behind their frozen prefix.

    Args:
      experiment: the arm.
      program: one of its phases.
    """

    def __init__(self, experiment: Experiment, program: PhaseProgram):
        self.experiment, self.program = experiment, program
        shapes = experiment.model.shapes()
        modules = step_lib.frozen_modules(program.decisions, shapes['batch_stats'])
        stats = trees.flatten(shapes['batch_stats'])
        self._still = {path: path.rpartition('/')[0] in modules for path in stats}
        self._shapes = shapes
        self.dtype = experiment.config.prefix.dtype
        train = experiment.config.train
        self.size = train.batch_size // train.accumulate
        trainable, frozen = program.split(shapes['params'])
        still, moving = self.still_and_moving(shapes['batch_stats'])
        key = jax.eval_shape(lambda: jax.random.key(0))
        self.train = prefix.cut(
            self._loss,
            (trainable, moving, key),
            (program.fixed(frozen), still),
            self._batch(self.size, experiment.views),
            (
                jax.tree.map(lambda _: kinds.TRAINED, trainable),
                jax.tree.map(lambda _: kinds.STATISTICS, moving),
                kinds.RANDOM,
            ),
        )

    def still_and_moving(self, batch_stats: trees.Tree) -> tuple[trees.Tree, trees.Tree]:
        """Batch statistics that stay, and those that move."""
        return trees.partition(batch_stats, self._still)

    def _batch(self, size: int, views: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
        example = dict(self.experiment.data.example)
        if views:
            number = jax.ShapeDtypeStruct((), jnp.int32)
            example |= {'row': number, 'view': number}
        return {k: jax.ShapeDtypeStruct((size, *s.shape), s.dtype) for k, s in example.items()}

    def _loss(self, live: Any, constant: Any, batch: Any) -> Any:
        (trainable, moving, key), (fixed, still) = live, constant
        stats = trees.combine(still, moving)
        return self.program.loss_of(trainable, fixed, stats, batch, key)

    @functools.cached_property
    def step(self) -> step_lib.Step:
        """`step(state, folded, features)`, not jitted."""

        def loss_of(trainable, folded, batch_stats, batch, key):
            _, moving = self.still_and_moving(batch_stats)
            return self.train.suffix((trainable, moving, key), folded, in_order(batch))

        return self.program.make_step(loss_of)

    def evaluation(self, size: int) -> prefix.Cut:
        """The evaluation of `size` examples, cut at the same leaves."""
        evaluate = step_lib.make_eval_step(
            self.experiment.model, self.experiment.task, self.experiment.prepare
        )

        def sums(live: Any, constant: Any, batch: Any) -> Any:
            (trainable, moving, weight), (frozen, still) = live, constant
            params, stats = trees.combine(trainable, frozen), trees.combine(still, moving)
            return evaluate(params, stats, {**batch, 'weight': weight})

        trainable, frozen = self.program.split(self._shapes['params'])
        still, moving = self.still_and_moving(self._shapes['batch_stats'])
        weight = jax.ShapeDtypeStruct((size,), jnp.float32)
        return prefix.cut(sums, (trainable, moving, weight), (frozen, still), self._batch(size))

    def constant(self, frozen: trees.Tree, batch_stats: trees.Tree, reference: Any) -> Any:
        """What the train step's prefix reads; statistics copied, since steps take theirs over."""
        still, _ = self.still_and_moving(batch_stats)
        return self.program.fixed(frozen, reference), jax.tree.map(jnp.copy, still)

    def shapes(self, cut: prefix.Cut) -> dict[str, jax.ShapeDtypeStruct]:
        """The features of one example as they are kept, by name."""
        return {
            f'feature{n}': jax.ShapeDtypeStruct(
                shape.shape,
                self.dtype if jnp.issubdtype(shape.dtype, jnp.floating) else shape.dtype,
            )
            for n, shape in enumerate(cut.features)
        }

    def decide(self, examples: int) -> Decision:
        """Whether keeping features pays, for so many training examples.

        It saves the prefix's operations in all but the first pass over the data. Behind it, a
        step does what is left three times: forward, and twice as much backward.
        """
        phase, config = self.program.phase, self.experiment.config
        epochs = phase.steps * config.train.batch_size / examples
        whole = self.train.prefix_flops + 3 * self.train.suffix_flops
        share = self.train.prefix_flops / whole if whole else 0.0
        views = max(self.experiment.views, 1)
        saved = share * max(1 - views / epochs, 0.0)
        each = sum(s.size * s.dtype.itemsize for s in self.shapes(self.train).values())
        nbytes = examples * views * each
        where = features.place_of(nbytes, config.prefix.store)
        many = f' in {views} views' if views > 1 else ''
        facts = (
            f"{saved:.0%} of the phase's operations, for {nbytes:,} bytes of features of "
            f'{examples} examples{many} ({where}), read {epochs:.1f} times'
        )
        ended = '; it ends at: ' + '; '.join(self.train.ended_by) if self.train.ended_by else ''
        if not self.train.prefix_flops:
            return Decision(False, 'nothing in front of what is trained is worth keeping' + ended)
        if saved < WORTH and config.prefix.cache == 'auto':
            return Decision(False, f'it would save only {facts}{ended}', saved, nbytes)
        return Decision(True, f'it saves {facts}{ended}', saved, nbytes)


def in_order(batch: Mapping[str, Any]) -> list[Any]:
    """Features by number: of a dict jit sorts the names, and 10 comes before 2."""
    return [batch[f'feature{n}'] for n in range(len(batch)) if f'feature{n}' in batch]
