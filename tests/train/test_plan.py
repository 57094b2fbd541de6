"""The plan that inspect prints: phases, leaves, rates and what a step costs."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_models

from tljax import config as config_lib
from tljax import models, trees
from tljax.tasks.classification import Classification
from tljax.train import plan
from tljax.train.experiment import Experiment, flat_variables
from tljax.train.programs import program
from tljax.transfer import phases
from tljax.transfer import plan as plan_surgery

BATCH = 4


def experiment_of(name, policy, **sections):
    config = config_lib.default()
    config.model = models.arguments(**small_models.SMALL[name][0])
    config.data.name = 'handwritten_digits'
    config.train.update(steps=20, batch_size=BATCH)
    config.transfer.policy = policy
    for section, changes in sections.items():
        config[section].update(changes)
    config = config_lib.resolve(config)
    example = {
        key: jax.ShapeDtypeStruct(shape, dtype)
        for key, (shape, dtype) in small_models.SMALL[name][1].items()
    }
    labelled = {**example, 'label': jax.ShapeDtypeStruct((), np.int32)}
    data = SimpleNamespace(example=labelled, subset=lambda seed: np.arange(20))
    model = models.build(config.model, example, 3)
    task = Classification(('a', 'b', 'c'))
    laid = phases(policy, 20, model.outline())
    return Experiment(config, data, task, model, laid, {}, None, None)


def text_of(experiment):
    shapes = flat_variables(experiment.model.shapes())
    manifest = plan_surgery(shapes, shapes)
    return plan.describe(experiment, experiment.phases, manifest)


def test_every_leaf_has_its_rate_and_weight_decay():
    experiment = experiment_of(
        'vit', 'layerwise_decay(decay=0.5)', optim={'lr': 0.1, 'weight_decay': 0.02}
    )
    (phase,) = experiment.phases
    words = plan.treatment(experiment, program(experiment, phase))
    assert words['head/kernel'] == 'lr 0.1, wd 0.02'
    assert words['head/bias'] == 'lr 0.1, wd 0'
    assert words['backbone/block2/mlp/up/kernel'] == 'lr 0.05, wd 0.02'
    assert words['backbone/norm/scale'] == 'lr 0.05, wd 0'
    assert words['backbone/patch/kernel'] == 'lr 0.00625, wd 0.02'
    lines = {line.split()[0]: line for line in text_of(experiment).split('\n') if line}
    for path, word in words.items():
        assert word in lines[path]


def test_weight_decay_of_a_rule():
    rules = [('head/.*', {'wd': 3.0}), ('.*', None)]
    experiment = experiment_of('convnet', [{'rules': rules}], optim={'weight_decay': 0.1})
    words = plan.treatment(experiment, program(experiment, experiment.phases[0]))
    assert words['head/bias'] == 'lr 0.001, wd 0.3'
    assert words['backbone/hidden/bias'] == 'frozen'


def test_later_phases_show_what_changes():
    experiment = experiment_of('convnet', 'gradual(share=0.6)')
    first, second, third, _, table = text_of(experiment).split('\n\n')[:5]
    paths = trees.flatten(experiment.model.shapes()['params'])
    assert all(path in first for path in paths)
    assert 'Phase 1, steps 0 to 3:' in first
    assert 'backbone/hidden/kernel' in second
    assert 'convs' not in second
    assert 'head' not in second
    members = experiment.model.outline().members
    assert f'{len(paths) - len(members[-2])} other leaves as in the phase before.' in second
    assert 'Batch statistics: 2 modules keep theirs, 0 move.' in first
    assert 'Batch statistics: 1 modules keep theirs, 1 move.' in third
    rows = table.split('\n')[1:]
    counts = [sum(map(len, members[-number:])) for number in range(1, 5)]
    assert len(rows) == len(counts)
    for row, count in zip(rows, counts, strict=True):
        assert f'{count} of {len(paths)}' in row


def test_a_phase_may_change_nothing():
    rules = [('head/.*', {}), ('.*', None)]
    experiment = experiment_of('convnet', [{'steps': 5, 'rules': rules}, {'rules': rules}])
    assert 'No leaf changes.' in text_of(experiment)


@pytest.mark.slow
def test_costs_are_those_of_what_is_trained():
    costs = {}
    for policy in ('linear_probe', 'surgical(block="last")', 'full'):
        experiment = experiment_of('vit', policy, optim={'name': 'adamw'})
        costs[policy] = plan.step_cost(experiment, program(experiment, experiment.phases[0]))
    probe, last, full = costs.values()
    assert probe['trained'] == 16 * 3 + 3
    # Two moments in float32 for each value, and for each leaf a count of steps.
    assert probe['optimizer_bytes'] == 2 * 4 * probe['trained'] + 4 * 2
    assert full['trained'] == full['parameters'] == last['parameters']
    assert full['trained_leaves'] == full['leaves']
    for key in ('flops', 'bytes', 'peak', 'optimizer_bytes', 'trained', 'trained_leaves'):
        assert 0 < probe[key] < last[key] < full[key]
    assert full['flops'] > 2 * probe['flops']


@pytest.mark.parametrize(
    ('sections', 'said'),
    [
        ({}, 'the schedule (cosine) restarts in each phase'),
        ({'optim': {'restart': False}}, 'the schedule (cosine) goes on over all phases'),
        ({'transfer': {'adapt_norm': True}}, 'estimated on the training subset'),
    ],
)
def test_notes(sections, said):
    assert said in text_of(experiment_of('convnet', 'linear_probe', **sections))


def test_a_block_not_chosen_yet_is_told():
    text = text_of(experiment_of('convnet', 'surgical(block="auto")'))
    assert 'chosen by its gradient when training begins; shown is the first' in text
