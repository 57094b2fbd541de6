"""What an experiment runs: the step of each phase, how a phase begins, and evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from tljax import trees
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment, Variables
from tljax.transfer import policies, regularizers


@dataclasses.dataclass(frozen=True)
class PhaseProgram:
    """One phase, ready to run: which leaves train, the optimiser, the step.

    Attributes:
      make_step: the step for a loss, `loss_of` or what is left of it behind a frozen prefix.
      reference: what regularisers need beside the model, as shapes.
      ema: decay of the moving averages that are evaluated and saved; 0 keeps none.
      loaded: path -> array, what a run begins with of its source.
    """

    phase: policies.Phase
    decisions: dict[str, dict[str, float] | None]
    tx: Any
    loss_of: step_lib.LossOf
    make_step: Callable[[step_lib.LossOf], step_lib.Step]
    reference: Any = dataclasses.field(default_factory=dict)
    ema: float = 0.0
    loaded: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def step(self) -> step_lib.Step:
        """`step(state, fixed, batch) -> state, metrics`."""
        return self.make_step(self.loss_of)

    def fixed(
        self, frozen: trees.Tree, reference: Mapping[str, Any] | None = None
    ) -> step_lib.Fixed:
        """What the step reads and never writes: the frozen half, and what regularisers need.

        Args:
          frozen: or its shapes.
          reference: of `tljax.train.reference`; None is its shapes.
        """
        reference = self.reference if reference is None else reference
        return {'frozen': frozen, 'reference': reference}

    def split(self, params: trees.Tree) -> tuple[trees.Tree, trees.Tree]:
        """The trainable and the frozen half."""
        trained = {path: value is not None for path, value in self.decisions.items()}
        return trees.partition(params, trained)

    def start(self, variables: Variables, lr: Any, key: jax.Array) -> state_lib.TrainState:
        """The state before the first step of a run that begins in this phase."""
        trainable, _ = self.split(variables['params'])
        stats = variables['batch_stats']
        return state_lib.create(trainable, stats, self.tx, lr, key, ema=self.ema > 0)

    def enter(self, state: state_lib.TrainState, params: trees.Tree) -> state_lib.TrainState:
        """The state at the boundary between the phase before and this one."""
        trainable, _ = self.split(params)
        opt_state = state_lib.carry_over(state.opt_state, self.tx.init(trainable))
        opt_state = regularizers.restarted(opt_state, self.loaded)
        ema = state.ema
        if ema is not None:
            modules = step_lib.frozen_modules(self.decisions, state.batch_stats)
            still = {p: p.rpartition('/')[0] in modules for p in trees.flatten(state.batch_stats)}
            frozen, _ = trees.partition(state.batch_stats, still)
            _, moving = trees.partition(ema['batch_stats'], still)
            ema = {
                'params': state_lib.carry_over(ema['params'], trainable),
                'batch_stats': trees.combine(frozen, moving),
            }
        return dataclasses.replace(state, trainable=trainable, opt_state=opt_state, ema=ema)


def program(experiment: Experiment, phase: policies.Phase) -> PhaseProgram:
    """Builds one phase's step.

    Raises:
      UserError: its rules do not fit the model's parameters.
    """
    config = experiment.config
    decisions = policies.decide(phase, experiment.param_paths())
    pulls = regularizers.gradients(experiment.setting, frozenset(experiment.loaded))
    tx = optimizer.direction(config.optim, decisions)
    tx = optax.chain(*pulls, tx) if pulls else tx
    objective = experiment.objective()
    loss_of = step_lib.loss_program(
        experiment.model, decisions, objective, experiment.prepare, experiment.augment
    )
    first, steps = (phase.first, phase.steps) if config.optim.restart else (0, config.train.steps)
    factor = optimizer.schedule(config.optim, steps)

    def make_step(loss_of: step_lib.LossOf) -> step_lib.Step:
        return step_lib.make_train_step(
            loss_of,
            tx,
            factor,
            accumulate=config.train.accumulate,
            first=first,
            ema=config.optim.ema,
        )

    shapes = regularizers.reference_shapes(experiment)
    return PhaseProgram(
        phase, decisions, tx, loss_of, make_step, shapes, config.optim.ema, experiment.loaded
    )


def compiled_eval(experiment: Experiment):
    """`evaluate(params, batch_stats, data, indices, weight) -> sums`, jitted."""
    evaluate = step_lib.make_eval_step(experiment.model, experiment.task, experiment.prepare)

    def run(params, batch_stats, data, indices, weight):
        batch = {**step_lib.gather(data, indices), 'weight': weight}
        return evaluate(params, batch_stats, batch)

    return jax.jit(run)
