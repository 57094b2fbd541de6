"""Texts as a user has them: spam or not, and the next word."""

import json

import pytest

SPAM = '--config=configs/text/spam.py'
NEXT = '--config=configs/text/next_word.py'
FEW = (
    '--config.train.steps=2',
    '--config.train.batch_size=4',
    '--config.train.eval_every=1',
    '--config.model.width=16',
    '--config.model.layers=1',
)
STUDY = (
    '--config.study.seeds=2',
    '--config.study.trials=1',
    '--config.study.eval_points=2',
)


@pytest.fixture(scope='module')
def model(launch, tmp_path_factory):
    """model(recipe, *flags) -> workdir of a source that was trained for two steps, once."""
    made = {}

    def train(recipe, *flags):
        if recipe not in made:
            workdir = tmp_path_factory.mktemp('source')
            launch.ok('train', f'{recipe}:source', *FEW, *flags, f'--workdir={workdir}')
            made[recipe] = workdir
        return made[recipe]

    return train


@pytest.mark.slow
def test_spam(launch, model, tmp_path):
    source = model(SPAM, '--config.model.hidden=16')
    taught = (SPAM, *FEW, '--config.model.hidden=16', f'--config.source.uri={source}')
    done = launch.ok('compare', *taught, *STUDY, f'--workdir={tmp_path}/compare')
    assert 'test auc at the end' in done.stdout
    launch.ok('train', *taught, f'--workdir={tmp_path}/run')
    (tmp_path / 'mail.txt').write_text('Win a lamp today, click here')
    out = launch.ok(
        'predict', *taught, f'--workdir={tmp_path}/run', f'--input={tmp_path}/mail.txt'
    ).stdout
    assert json.loads(out)['label'] in ('spam', 'no spam', 'ham')
    told = launch.refused('predict', *taught, f'--workdir={tmp_path}/run', '--prompt=Win')
    assert 'models of the next word' in told


@pytest.mark.slow
def test_next_word(launch, model, tmp_path):
    source = model(NEXT, '--config.data.train=train[:5%]')
    taught = (NEXT, *FEW, f'--config.source.uri={source}')
    done = launch.ok('compare', *taught, *STUDY, f'--workdir={tmp_path}/compare')
    assert 'test log_perplexity at the end' in done.stdout
    launch.ok('train', *taught, f'--workdir={tmp_path}/run')
    run = (*taught, f'--workdir={tmp_path}/run')
    said = [
        json.loads(launch.ok('predict', *run, '--prompt=Returns the', '--words=3').stdout)
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert said[0]['prompt'] == 'Returns the'
    assert len(said[0]['continuation'].split()) <= 3
    assert 'use --prompt' in launch.refused('predict', *run, f'--input={tmp_path}')
    assert '--input=FILE_OR_FOLDER, or --prompt' in launch.refused('predict', *run)
    ranking = ('rank', *taught, f'--sources={source}', f'--workdir={tmp_path}/rank')
    assert 'log_likelihood' in launch.ok(*ranking).stdout
