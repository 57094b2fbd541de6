"""What a run would reuse and train, and what a step costs, without running it."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tljax import trees
from tljax.train import experiment as experiment_lib
from tljax.train import sources
from tljax.train.experiment import Experiment, PhaseProgram
from tljax.transfer import Manifest, plan


def describe(config: ConfigDict, workdir: Path) -> str:
    """The text of `launch.py inspect`.

    Args:
      config: the target's.
      workdir: where a `config:` source would be, or is.

    Raises:
      UserError: whatever would stop the run: a leaf that doesn't fit, a dead rule.
    """
    experiment = experiment_lib.build(config, None)
    found = sources.shapes(config, workdir)
    target = experiment_lib.flat_variables(experiment.model.shapes())
    parts = [_data(experiment), _model(experiment)]
    manifest = plan({}, target, reset=('.*',))
    if found:
        leaves, where = found
        manifest = experiment_lib.plan_surgery(config, leaves, target)
        parts.append(f'Source: {where}\n{manifest.summary()}')
        phases = experiment_lib.planned_phases(experiment)
    else:
        parts.append('Source: none; everything starts from its initialisation.')
        phases = experiment.phases
    for phase in phases:
        program = experiment_lib.program(experiment, phase)
        parts.append(_phase(experiment, program, manifest))
    return '\n\n'.join(parts)


def _data(experiment: Experiment) -> str:
    config, data = experiment.config.data, experiment.data
    sizes = {name: len(data.split(name)) for name in ('train', 'validation', 'test')}
    chosen = len(data.subset(experiment.config.seed))
    shots = f', {config.shots} labels a class' if config.shots else ''
    lines = [
        f'Data: {config.name}; training on {chosen} of {sizes["train"]} examples{shots}; '
        f'validation {sizes["validation"]}, test {sizes["test"]}.',
        f'Classes: {", ".join(data.label_names)}.',
    ]
    lines += [
        f'Example: {name} {shape.dtype}{list(shape.shape)}' for name, shape in data.example.items()
    ]
    return '\n'.join(lines)


def _model(experiment: Experiment) -> str:
    params = experiment.model.shapes()['params']
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return (
        f'Model: {experiment.config.model.name}, {count:,} parameters, '
        f'{trees.nbytes(params):,} bytes.'
    )


def _phase(experiment: Experiment, program: PhaseProgram, manifest: Manifest) -> str:
    phase = program.phase
    rates = {
        path: None if decision is None else decision['lr'] * experiment.config.optim.lr
        for path, decision in program.decisions.items()
    }
    cost = step_cost(experiment, program)
    return (
        f'Steps {phase.first} to {phase.end - 1}:\n{manifest.table(rates)}\n'
        f'A step: {cost["flops"]:,.0f} floating-point operations, '
        f'{cost["optimizer_bytes"]:,} bytes of optimiser state, '
        f'{cost["trained"]:,} of {cost["parameters"]:,} parameters trained.'
    )


def step_cost(experiment: Experiment, program: PhaseProgram) -> dict[str, float]:
    """What the compiled step costs: `flops` by XLA's count, and the optimiser's bytes."""
    variables = experiment.model.shapes()
    trainable, frozen = program.split(variables['params'])
    state = jax.eval_shape(lambda v: program.start(v, 0.0, jax.random.key(0)), variables)
    size = experiment.config.train.batch_size
    batch = {
        name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)
        for name, leaf in experiment.data.example.items()
    }
    compiled = jax.jit(program.step).lower(state, program.fixed(frozen), batch).compile()
    analysis = compiled.cost_analysis() or {}
    everything = jax.tree.leaves(variables['params'])
    return {
        'flops': float(analysis.get('flops', jnp.nan)),
        'optimizer_bytes': trees.nbytes(state.opt_state),
        'trained': sum(leaf.size for leaf in jax.tree.leaves(trainable)),
        'parameters': sum(leaf.size for leaf in everything),
    }
