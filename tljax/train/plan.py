"""A policy's plan in words: phases, leaves, rates, and what a step of each phase costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax import trees
from tljax.train import experiment as experiment_lib
from tljax.train import programs
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment
from tljax.train.prefixed import PhaseRunner
from tljax.train.programs import PhaseProgram
from tljax.transfer import Manifest, Phase, policies

Cost = dict[str, float]


def describe(experiment: Experiment, phases: Sequence[Phase], manifest: Manifest) -> str:
    """Each phase with its leaves and its costs, then all phases side by side.

    The first phase shows every leaf, the others those that are treated in another way than before.

    Args:
      experiment: whose values need not be there; shapes are enough.
      phases: of its policy.
      manifest: of its surgery.
    """
    notes, parts, rows = _notes(experiment), [], []
    before: Mapping[str, str] = {}
    for number, phase in enumerate(phases, 1):
        program = programs.program(experiment, phase)
        words, cost = treatment(experiment, program), step_cost(experiment, program)
        name = f'Phase {number}, s' if len(phases) > 1 else 'S'
        parts.append(
            f'{name}teps {phase.first} to {phase.end - 1}:\n{_leaves(manifest, words, before)}\n'
            f'{_statistics(experiment, program)}{_cost(cost)}\n{_prefix(experiment, program)}'
        )
        rows.append([str(number), f'{phase.first} to {phase.end - 1}', *_row(program, cost)])
        before = words
    if len(phases) > 1:
        parts.append('\n'.join(aligned([HEADINGS, *rows])))
    return '\n\n'.join([*parts, *notes])


HEADINGS = [
    'phase',
    'steps',
    'lr',
    'leaves trained',
    'parameters trained',
    'operations a step',
    'bytes a step',
    'optimiser bytes',
]


def treatment(experiment: Experiment, program: PhaseProgram) -> dict[str, str]:
    """For each parameter 'frozen', or its learning rate and weight decay."""
    optim, shapes = experiment.config.optim, trees.flatten(experiment.model.shapes()['params'])
    words = {}
    for path, decision in program.decisions.items():
        if decision is None:
            words[path] = 'frozen'
            continue
        decays = 1.0 if len(shapes[path].shape) > 1 else 0.0
        wd = optim.weight_decay * decision.get('wd', decays)
        words[path] = f'lr {decision["lr"] * optim.lr:g}, wd {wd:g}'
    return words


def step_cost(experiment: Experiment, program: PhaseProgram) -> Cost:
    """What the compiled step costs, by XLA's count, for a batch of `config.train.batch_size`.

    Returns:
      `flops`; `bytes` read and written; `peak` bytes of memory held at once, parameters and batch
      included; `optimizer_bytes`; `trained` and `parameters`, numbers of values; `trained_leaves`
      and `leaves`.
    """
    variables = experiment.model.shapes()
    trainable, frozen = program.split(variables['params'])
    state = jax.eval_shape(lambda v: program.start(v, 0.0, jax.random.key(0)), variables)
    size = experiment.config.train.batch_size
    batch = {
        name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)
        for name, leaf in experiment.data.example.items()
    }
    lowered = jax.jit(program.step, donate_argnums=0).lower(state, program.fixed(frozen), batch)
    compiled = lowered.compile()
    analysis = compiled.cost_analysis() or {}
    everything, trained = jax.tree.leaves(variables['params']), jax.tree.leaves(trainable)
    return {
        'flops': float(analysis.get('flops', jnp.nan)),
        'bytes': float(analysis.get('bytes accessed', jnp.nan)),
        'peak': _peak(compiled.memory_analysis()),
        'optimizer_bytes': trees.nbytes(state.opt_state),
        'trained': sum(leaf.size for leaf in trained),
        'parameters': sum(leaf.size for leaf in everything),
        'trained_leaves': len(trained),
        'leaves': len(everything),
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell.

    >>> aligned([['a', 'b'], ['long', 'c']])
    ['a     b', 'long  c']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return [line.rstrip() for line in lines]


def _leaves(manifest: Manifest, words: Mapping[str, str], before: Mapping[str, str]) -> str:
    """The table of leaves, those left out that are treated as they were before."""
    if not before:
        return manifest.table(words)
    changed = tuple(
        entry
        for entry in manifest.entries
        if entry.action != 'unused' and before.get(entry.path) != words.get(entry.path)
    )
    same = sum(before[path] == word for path, word in words.items())
    table = Manifest(changed).table(words) if changed else 'No leaf changes.'
    return f'{table}\n{same} other leaves as in the phase before.' if changed else table


def _statistics(experiment: Experiment, program: PhaseProgram) -> str:
    """A line on batch statistics, where there are any."""
    stats = experiment.model.shapes()['batch_stats']
    modules = {path.rpartition('/')[0] for path in trees.flatten(stats)}
    if not modules:
        return ''
    frozen = len(step_lib.frozen_modules(program.decisions, stats))
    return f'Batch statistics: {frozen} modules keep theirs, {len(modules) - frozen} move.\n'


def _prefix(experiment: Experiment, program: PhaseProgram) -> str:
    """A line on whether what doesn't depend on trained leaves is computed once, and why."""
    examples = len(experiment.data.subset(experiment.config.seed))
    decision = PhaseRunner(experiment, program, None).decide(examples)
    words = 'computed once an example' if decision.worth else 'computed in every step'
    return f'Frozen prefix: {words}; {decision.reason}.'


def _cost(cost: Cost) -> str:
    return (
        f'A step: {cost["flops"]:,.0f} floating-point operations, {cost["bytes"]:,.0f} bytes read '
        f'and written, {cost["peak"]:,.0f} bytes of memory at most, '
        f'{cost["optimizer_bytes"]:,} bytes of optimiser state, {cost["trained"]:,} of '
        f'{cost["parameters"]:,} parameters trained.'
    )


def _row(program: PhaseProgram, cost: Cost) -> list[str]:
    given = {decision['lr'] for decision in program.decisions.values() if decision is not None}
    low, high = min(given), max(given)
    return [
        f'x {low:g}' if low == high else f'x {low:g} to {high:g}',
        f'{cost["trained_leaves"]} of {cost["leaves"]}',
        f'{cost["trained"]:,}',
        f'{cost["flops"]:,.0f}',
        f'{cost["bytes"]:,.0f}',
        f'{cost["optimizer_bytes"]:,}',
    ]


def _notes(experiment: Experiment) -> list[str]:
    """What the numbers above do not say."""
    config, notes = experiment.config, []
    policy = experiment_lib.policy_of(config)
    if policies.chosen_by_gradients(policy):
        notes.append(
            f'{policies.KEY}: the block is chosen by its gradient when training begins; shown is '
            'the first.'
        )
    if config.optim.schedule != 'constant' or config.optim.warmup_steps:
        how = 'restarts in each phase' if config.optim.restart else 'goes on over all phases'
        notes.append(f'Rates are peaks; the schedule ({config.optim.schedule}) {how}.')
    if config.transfer.adapt_norm:
        notes.append(
            'Batch statistics are estimated on the training subset before the first update.'
        )
    return ['\n'.join(notes)] if notes else []


def _peak(analysis: Any) -> float:
    """Bytes that a compiled program holds at once: what it is given, what it makes meanwhile."""
    if analysis is None:
        return float('nan')
    return float(
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
