"""What a run would reuse and train, and what a step costs, without running it."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from tljax import trees
from tljax.train import adapters, sources
from tljax.train import experiment as experiment_lib
from tljax.train import plan as plan_lib
from tljax.train.experiment import Experiment
from tljax.transfer import plan


def describe(config: ConfigDict, workdir: Path) -> str:
    """The text of `launch.py inspect`.

    Args:
      config: the target's.
      workdir: where a `config:` source would be, or is.

    Raises:
      UserError: whatever would stop the run: a leaf that doesn't fit, a dead rule.
    """
    experiment = experiment_lib.build(config, None, injected=True)
    found = sources.shapes(config, workdir)
    target = experiment_lib.flat_variables(experiment.model.shapes())
    parts = [_data(experiment), _model(experiment)]
    manifest = plan({}, target, reset=('.*',))
    if found:
        leaves, where = found
        injected = experiment.model.outline().injected
        manifest = experiment_lib.plan_surgery(config, leaves, target, injected)
        if config.source.peft:
            manifest = adapters.told(config.source.peft, manifest, target)
        parts.append(f'Source: {where}\n{manifest.summary()}')
        loaded = {path: target[path] for path in manifest.reused()}
        experiment = experiment_lib.regularized(experiment, leaves, loaded)
        phases = experiment_lib.planned_phases(experiment)
        experiment_lib.check_rules(experiment, phases)
    else:
        parts.append('Source: none; everything starts from its initialisation.')
        phases = experiment.phases
    if experiment.setting.regularizers:
        parts.append(_regularizers(experiment))
    parts.append(plan_lib.describe(experiment, phases, manifest))
    return '\n\n'.join(parts)


def _data(experiment: Experiment) -> str:
    config, data = experiment.config.data, experiment.data
    sizes = {name: len(data.split(name)) for name in ('train', 'validation', 'test')}
    chosen = len(data.subset(experiment.config.seed))
    few = f'{config.shots} labels a class' if data.label_names else f'{config.shots} drawn'
    shots = f', {few}' if config.shots else ''
    lines = [
        f'Data: {config.name}; training on {chosen} of {sizes["train"]} examples{shots}; '
        f'validation {sizes["validation"]}, test {sizes["test"]}.',
        *([f'Classes: {", ".join(data.label_names)}.'] if data.label_names else []),
    ]
    lines += [
        f'Example: {name} {shape.dtype}{list(shape.shape)}' for name, shape in data.example.items()
    ]
    return '\n'.join(lines)


def _regularizers(experiment: Experiment) -> str:
    names = ', '.join(regularizer.name for regularizer in experiment.setting.regularizers)
    head = trees.flatten(experiment.model.shapes()['params']).get('source_head/kernel')
    if head is None:
        return f'Regularisers: {names}.'
    return (
        f"Regularisers: {names}; while training, the source's head with its {head.shape[-1]} "
        'outputs is a second one, source_head.'
    )


def _model(experiment: Experiment) -> str:
    params = experiment.model.shapes()['params']
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return (
        f'Model: {experiment.config.model.name}, {count:,} parameters, '
        f'{trees.nbytes(params):,} bytes.'
    )
