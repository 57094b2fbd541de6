"""average: soups and interpolation, as a user makes them of trained workdirs."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from tljax import trees
from tljax.train.model_dir import load_card, load_model

pytestmark = pytest.mark.slow

SMALL = (
    '--config=configs/digits.py',
    '--config.model.norm=batch',
    '--config.model.widths=(8, 8)',
    '--config.train.steps=40',
    '--config.train.eval_every=40',
)


def leaves(directory):
    variables, _ = load_model(directory / 'model')
    return trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])


@pytest.fixture(scope='module')
def trained(launch, tmp_path_factory):
    """Three models from one source, at different learning rates, the last far too high."""
    home = tmp_path_factory.mktemp('soup')
    launch.ok(
        'train',
        '--config=configs/digits.py:source',
        *SMALL[1:3],
        '--config.train.steps=150',
        f'--workdir={home / "source"}',
        '--quiet',
    )
    for name, lr in (('a', '1e-3'), ('b', '3e-3'), ('bad', '0.5')):
        launch.ok(
            'train',
            *SMALL,
            f'--config.source.uri={home / "source" / "model"}',
            f'--config.optim.lr={lr}',
            f'--workdir={home / name}',
            '--quiet',
        )
    return home


def test_a_uniform_soup_is_the_mean_with_statistics_of_its_own(launch, trained, tmp_path):
    models = [trained / 'a', trained / 'b']
    said = launch.ok(
        'average', f'--models={models[0]},{models[1]}', f'--workdir={tmp_path / "soup"}'
    ).stdout
    found, parts = leaves(tmp_path / 'soup'), [leaves(m) for m in models]
    for path, leaf in found.items():
        mean = (parts[0][path].astype(np.float64) + parts[1][path]) / 2
        if path.rpartition('/')[2] in ('mean', 'var'):
            assert not np.allclose(leaf, mean, rtol=1e-5, atol=1e-7), path
        else:
            np.testing.assert_allclose(leaf, mean, rtol=1e-6, atol=1e-7, err_msg=path)
    record = json.loads((tmp_path / 'soup' / 'average.json').read_text())
    assert f'{record["validation"]:.4f}  the average' in said
    measured = json.loads(launch.ok('evaluate', f'--workdir={tmp_path / "soup"}').stdout)
    assert measured['accuracy'] == pytest.approx(record['validation'])
    for model, entry in zip(models, record['models'], strict=True):
        own = json.loads(launch.ok('evaluate', f'--workdir={model}').stdout)
        assert own['accuracy'] == pytest.approx(entry['validation'])
    card = load_card(tmp_path / 'soup' / 'model')
    assert card['steps'] == 80
    assert not list((tmp_path / 'soup').glob('evaluation-test*'))


def test_a_greedy_soup_leaves_a_bad_model_out(launch, trained, tmp_path):
    models = ','.join(str(trained / name) for name in ('bad', 'a', 'b'))
    arguments = ('average', f'--models={models}', '--method=greedy', f'--workdir={tmp_path / "s"}')
    launch.ok(*arguments)
    record = json.loads((tmp_path / 's' / 'average.json').read_text())
    assert record['models'][0]['weight'] == 0
    best = max(model['validation'] for model in record['models'])
    assert record['validation'] >= best
    assert record['tried'][0]['validation'] == best
    before = (tmp_path / 's' / 'model' / 'card.json').stat().st_mtime_ns
    assert 'averaged already' in launch.ok(*arguments).stderr
    assert (tmp_path / 's' / 'model' / 'card.json').stat().st_mtime_ns == before
    assert 'another average' in launch.refused(*arguments, '--method=uniform')


def test_interpolation_with_what_a_model_began_from(launch, trained, tmp_path):
    for share in (0.0, 0.5, 1.0):
        launch.ok(
            'average',
            f'--models={trained / "a"}',
            f'--method=interpolate(share={share})',
            f'--workdir={tmp_path / str(share)}',
        )
    source, tuned = leaves(trained / 'source'), leaves(trained / 'a')
    for path in tuned:
        assert leaves(tmp_path / '0.0')[path].tobytes() == source[path].tobytes(), path
        assert leaves(tmp_path / '1.0')[path].tobytes() == tuned[path].tobytes(), path
        if path.rpartition('/')[2] not in ('mean', 'var'):
            middle = (source[path].astype(np.float64) + tuned[path]) / 2
            found = leaves(tmp_path / '0.5')[path]
            np.testing.assert_allclose(found, middle, rtol=1e-6, atol=1e-7, err_msg=path)
    launch.ok(
        'average',
        f'--models={trained / "a"}',
        "--method=interpolate(share='best')",
        f'--workdir={tmp_path / "best"}',
    )
    record = json.loads((tmp_path / 'best' / 'average.json').read_text())
    assert record['validation'] == max(entry['validation'] for entry in record['tried'])
    assert len(record['tried']) == 11


def test_an_average_can_be_a_source_and_be_exported(launch, trained, tmp_path):
    soup = tmp_path / 'soup'
    launch.ok('average', f'--models={trained / "a"},{trained / "b"}', f'--workdir={soup}')
    launch.ok('export', f'--workdir={soup}', f'--output={tmp_path / "soup.safetensors"}')
    exported, kept = load_file(tmp_path / 'soup.safetensors'), leaves(soup)
    assert exported.keys() == kept.keys()
    assert all(np.array_equal(exported[path], leaf) for path, leaf in kept.items())
    launch.ok(
        'train',
        *SMALL,
        '--config.train.steps=1',
        f'--config.source.uri={soup / "model"}',
        f'--workdir={tmp_path / "next"}',
        '--quiet',
    )
    source = load_card(tmp_path / 'next' / 'model')['source']
    assert source['average'] == load_card(soup / 'model')['average']


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('--models=nowhere,elsewhere',), 'nowhere holds no trained model'),
        (('--models={a}',), '--method=uniform takes two models or more'),
        (('--models={a},{b}', '--method=greedly'), "Did you mean 'greedy'"),
        (('--models={a},{b}', '--method=interpolate(share=2)'), 'from 0 to 1'),
        (('--models={a},{b},{bad}', '--method=interpolate'), 'takes two models, or one'),
        (('--models={source}', '--method=interpolate'), 'trained from scratch'),
        (('--models={a},{source}',), 'cannot be averaged: they differ in data.'),
        (('--models={a},{b}', '--workdir={a}'), 'holds a run of `train`'),
        (('--models={a},{b}', '--config=configs/digits.py'), 'average reads no --config'),
        ((), '--models is missing'),
    ],
)
def test_what_cannot_be_averaged_is_said(launch, trained, tmp_path, words, said):
    names = {name: trained / name for name in ('a', 'b', 'bad', 'source')}
    words = [word.format(**names) for word in words]
    if not any(word.startswith('--workdir') for word in words):
        words.append(f'--workdir={tmp_path / "x"}')
    assert said in launch.refused('average', *words)
    assert not (tmp_path / 'x').exists()


def test_a_model_that_was_trained_on_validation_is_refused(launch, trained, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(trained / 'b', other)
    splits = json.loads((other / 'splits.json').read_text())
    splits['validation']['indices'][0] += 1
    (other / 'splits.json').write_text(json.dumps(splits))
    said = launch.refused('average', f'--models={trained / "a"},{other}', f'--workdir={tmp_path}')
    assert 'set other examples aside' in said
