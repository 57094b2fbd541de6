"""LoRA as a user runs it: trained, written alone, put over its source again, merged."""

import json
import re

import numpy as np
import pytest

from tljax import trees
from tljax.train.model_dir import load_model

pytestmark = pytest.mark.slow

RECIPE = '--config=configs/digits.py:new_classes'
SMALL = ('--config.model.norm=batch', '--config.model.widths=(8, 8)')
LORA = '--config.transfer.policy=lora(rank=2)'
STILL = '--config.optim.lr=1e-20'


@pytest.fixture(scope='module')
def sources(launch, tmp_path_factory):
    """Two sources with batch statistics, hardly trained."""
    made = []
    for seed in (5, 6):
        workdir = tmp_path_factory.mktemp('source')
        launch.ok(
            'train',
            '--config=configs/digits.py:zero_to_four',
            *SMALL,
            '--config.train.steps=20',
            f'--config.seed={seed}',
            f'--workdir={workdir}',
            '--quiet',
        )
        made.append(workdir / 'model')
    return made


@pytest.fixture(scope='module')
def words(sources):
    return (RECIPE, *SMALL, '--config.train.steps=12', f'--config.source.uri={sources[0]}')


@pytest.fixture(scope='module')
def trained(launch, words, tmp_path_factory):
    """A run with LoRA, and the file of what it trained."""
    workdir = tmp_path_factory.mktemp('lora')
    launch.ok('train', *words, LORA, '--config.optim.lr=0.02', f'--workdir={workdir}', '--quiet')
    file = workdir / 'adapter.safetensors'
    launch.ok('export', f'--workdir={workdir}', '--format=peft', f'--output={file}')
    return workdir, file


def leaves(directory):
    variables, card = load_model(directory)
    flat = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return {path: np.asarray(leaf) for path, leaf in flat.items()}, card


def loss(launch, *words):
    """What `evaluate` says; the whole of it, since a loss tells models apart."""
    said = json.loads(launch.ok('evaluate', *words, '--quiet').stdout)
    return said['loss']


def test_only_what_is_injected_and_the_head_move(trained, sources):
    after, _ = leaves(trained[0] / 'model')
    before, _ = leaves(sources[0])
    injected = after.keys() - before.keys()
    assert {path.rpartition('/')[2] for path in injected} == {'lora_a', 'lora_b'}
    for path, leaf in before.items():
        if not path.startswith('head/'):
            np.testing.assert_array_equal(after[path], leaf, err_msg=path)
    manifest = json.loads((trained[0] / 'model' / 'manifest.json').read_text())
    actions = {entry['path']: entry['action'] for entry in manifest['entries']}
    assert {actions[path] for path in injected} == {'injected'}


def test_the_file_is_small_and_holds_no_frozen_leaf(trained, sources):
    from safetensors.numpy import load_file

    workdir, file = trained
    held, after = load_file(file), leaves(workdir / 'model')[0]
    assert {p.rpartition('/')[2] for p in held} == {'lora_a', 'lora_b', 'kernel', 'bias'}
    assert {p for p in held if 'lora' not in p} == {'head/kernel', 'head/bias'}
    for path, leaf in held.items():
        np.testing.assert_array_equal(leaf, after[path])
    assert file.stat().st_size < sum(leaf.nbytes for leaf in after.values()) / 2


@pytest.mark.parametrize(
    'policy',
    [LORA, pytest.param('--config.transfer.policy=linear_probe', marks=pytest.mark.matrix)],
)
def test_over_the_same_source_it_computes_the_same(launch, trained, words, tmp_path, policy):
    """Injected again, or merged into the weights where nothing is injected."""
    workdir, file = trained
    expected = loss(launch, *words, LORA, '--config.optim.lr=0.02', f'--workdir={workdir}')
    again = (*words, policy, STILL, f'--config.source.peft={file}', f'--workdir={tmp_path / "run"}')
    launch.ok('train', *again, '--quiet')
    np.testing.assert_allclose(loss(launch, *again), expected, rtol=1e-5)
    told = launch.ok('inspect', *again).stdout
    assert 'from adapter.safetensors' in told


@pytest.mark.slow
def test_its_model_is_a_source_and_is_merged_for_export(launch, trained, words, tmp_path):
    workdir, _ = trained
    expected = loss(launch, *words, LORA, '--config.optim.lr=0.02', f'--workdir={workdir}')
    merged = tmp_path / 'merged.safetensors'
    launch.ok('export', f'--workdir={workdir}', f'--output={merged}')
    for uri, name in ((workdir / 'model', 'own'), (merged, 'file')):
        run = (
            RECIPE,
            *SMALL,
            STILL,
            '--config.train.steps=1',
            f'--config.source.uri={uri}',
            '--config.transfer.reset=()',
            '--config.transfer.policy=linear_probe',
            f'--workdir={tmp_path / name}',
        )
        launch.ok('train', *run, '--quiet')
        assert not any('lora' in path for path in leaves(tmp_path / name / 'model')[0])
        np.testing.assert_allclose(loss(launch, *run), expected, rtol=1e-5)


def test_what_does_not_fit_is_refused(launch, trained, sources, words, tmp_path):
    _, file = trained
    other = (RECIPE, *SMALL, LORA, f'--config.source.uri={sources[1]}')
    said = launch.refused(
        'train', *other, f'--config.source.peft={file}', f'--workdir={tmp_path / "a"}'
    )
    assert 'belongs to another backbone' in said
    assert len(re.findall(r'\b[0-9a-f]{64}\b', said)) == 2
    said = launch.refused(
        'train',
        *words,
        '--config.transfer.policy=lora(rank=3)',
        f'--config.source.peft={file}',
        f'--workdir={tmp_path / "b"}',
    )
    assert "config.transfer.policy='lora(rank=2)'" in said
    said = launch.refused(
        'train', RECIPE, *SMALL, '--config.source.uri=', f'--config.source.peft={file}',
        '--config.transfer.reset=()', f'--workdir={tmp_path / "c"}',
    )  # fmt: skip
    assert 'config.source.uri is empty' in said
    said = launch.refused(
        'train', *words, f'--config.source.peft={sources[0] / "card.json"}',
        f'--workdir={tmp_path / "d"}',
    )  # fmt: skip
    assert 'card.json' in said


@pytest.mark.matrix
def test_compared_with_scratch_which_gets_nothing_injected(launch, words, tmp_path):
    workdir = tmp_path / 'compare'
    launch.ok(
        'compare', *words, LORA, f'--workdir={workdir}', '--quiet', '--config.study.seeds=2',
        '--config.study.trials=1', '--config.study.tuning_seeds=1',
    )  # fmt: skip
    results = json.loads((workdir / 'report' / 'results.json').read_text())
    actions = [entry['action'] for entry in results['manifest']['entries']]
    assert actions.count('injected') == 4
