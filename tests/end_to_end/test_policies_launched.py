"""Policies as a user gives them: on the command line, by name with arguments."""

import json

import numpy as np
import pytest

from tljax import trees
from tljax.train.model_dir import load_model

pytestmark = pytest.mark.slow

RECIPE = '--config=configs/digits.py:new_classes'


@pytest.fixture(scope='module')
def source(launch, tmp_path_factory):
    """A source with batch statistics, hardly trained."""
    workdir = tmp_path_factory.mktemp('source')
    launch.ok(
        'train',
        '--config=configs/digits.py:zero_to_four',
        '--config.train.steps=20',
        '--config.model.norm=batch',
        '--config.model.widths=(8, 8)',
        f'--workdir={workdir}',
        '--quiet',
    )
    return workdir / 'model'


@pytest.fixture
def words(source, tmp_path):
    return (
        RECIPE,
        '--config.model.norm=batch',
        '--config.model.widths=(8, 8)',
        '--config.train.steps=12',
        f'--config.source.uri={source}',
        f'--workdir={tmp_path / "run"}',
    )


def leaves(directory):
    variables, card = load_model(directory)
    flat = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return {path: np.asarray(leaf) for path, leaf in flat.items()}, card


def test_surgery_on_the_block_that_gradients_choose(launch, words, source, tmp_path):
    policy = '--config.transfer.policy=surgical(block="auto")'
    said = launch.ok('train', *words, policy).stderr
    assert 'Relative gradient norms of the blocks' in said
    after, card = leaves(tmp_path / 'run' / 'model')
    before, _ = leaves(source)
    assert card['policy'] in [f'surgical(block={n})' for n in range(3)]
    assert f'config.transfer.policy: {card["policy"]}.' in said
    block = ('backbone/convs/0', 'backbone/norms/0'), ('backbone/convs/1', 'backbone/norms/1')
    trained = (*block, ('backbone/hidden',))[int(card['policy'][-2])]
    for path, leaf in after.items():
        if not path.startswith('head/'):
            assert np.array_equal(leaf, before[path]) != path.startswith(trained), path


@pytest.mark.matrix
def test_adapted_statistics_are_not_the_sources(launch, words, source, tmp_path):
    arguments = ('--config.transfer.adapt_norm', '--config.transfer.policy=linear_probe')
    launch.ok('train', *words, *arguments)
    after, _ = leaves(tmp_path / 'run' / 'model')
    before, _ = leaves(source)
    for path, leaf in after.items():
        if not path.startswith('head/'):
            is_statistic = path.rpartition('/')[2] in ('mean', 'var')
            assert np.any(leaf != before[path]) == is_statistic, path


@pytest.mark.slow
def test_inspect_prints_the_plan(launch, words):
    said = launch.ok(
        'inspect', *words, '--config.transfer.policy=gradual', '--config.optim.restart=False'
    ).stdout
    for word in (
        'Phase 1, steps 0 to 1:',
        'Phase 4, steps 6 to 11:',
        'Batch statistics: 2 modules keep theirs, 0 move.',
        'bytes of memory at most',
        'parameters trained',
        'goes on over all phases',
    ):
        assert word in said


@pytest.mark.matrix
def test_from_scratch_does_not_even_train_the_source(launch, tmp_path):
    workdir = tmp_path / 'run'
    policy = '--config.transfer.policy=from_scratch'
    launch.ok('train', RECIPE, policy, '--config.train.steps=2', f'--workdir={workdir}')
    assert not (workdir / 'source').exists()
    assert json.loads((workdir / 'model' / 'card.json').read_text())['source'] is None


@pytest.mark.parametrize(
    ('command', 'change', 'said'),
    [
        ('compare', '--config.transfer.policy=from_scratch', 'compare sets transfer beside'),
        ('train', '--config.transfer.policy=lora(', 'is not written as a name, or a call'),
        ('inspect', '--config.transfer.policy=gradual(share=0.01)', 'every phase needs one'),
    ],
)
def test_mistakes(launch, words, command, change, said):
    assert said in launch.refused(command, *words, change)


@pytest.mark.slow
def test_no_statistics_to_adapt(launch, tmp_path):
    said = launch.refused(
        'inspect', RECIPE, '--config.transfer.adapt_norm', f'--workdir={tmp_path / "run"}'
    )
    assert 'config.transfer.adapt_norm is set, but convnet keeps no batch statistics' in said
