"""What a user can do wrong: one clear message, exit status 2, no traceback."""

import subprocess
import sys
import textwrap

import pytest

TRAIN = ('train', '--config=configs/digits.py:zero_to_four', '--config.train.steps=20')


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (('trian',), "no command 'trian'. Did you mean 'train'"),
        (('train', '--workdir=x'), '--config is missing'),
        (('train', '--config=configs/digits.py'), '--workdir is missing'),
        (('train', '--config=configs/digit.py', '--workdir=x'), "Did you mean 'configs/digits.py'"),
        (('train', '--config=configs/digits.py:sauce', '--workdir=x'), "no 'sauce'"),
        ((*TRAIN, '--workdir=x', '--config.optim.lrr=1'), 'lrr'),
        ((*TRAIN, '--workdir=x', '--config.optim.lr=fast'), 'optim.lr'),
        ((*TRAIN, '--workdir=x', '--config.optim.lr=-1'), 'config.optim.lr is -1.0'),
        ((*TRAIN, '--workdir=x', '--wrokdir=y'), "Unknown command line flag 'wrokdir'"),
        ((*TRAIN, '--workdir=x', 'extra'), "unexpected argument 'extra'"),
        ((*TRAIN, '--workdir=x', '--input=y'), '--input belongs to the command predict'),
        (
            (*TRAIN, '--workdir=x', '--config.transfer.policy=lp_ft'),
            'config.transfer.policy is set',
        ),
    ],
)
def test_wrong_words(launch, arguments, said):
    assert said in launch.refused(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (('--config.data.name=printed_digit',), "Did you mean 'printed_digits'"),
        (('--config.data.train=trian',), 'config.data.train'),
        (('--config.data.test=train',), 'overlap'),
        (('--config.data.shots=1000',), 'config.data.shots'),
        (('--config.transfer.policy=3', '--config.source.uri=SOURCE'), 'transfer.policy'),
        (('--config.data.classes=("11",)',), 'config.data.classes'),
        (('--config.model.name=convet',), "Did you mean 'convnet'"),
        (('--config.task.name=clasification',), "Did you mean 'classification'"),
        (('--config.transfer.policy=fulll', '--config.source.uri=SOURCE'), "Did you mean 'full'"),
        (('--config.source.uri=nowhere',), "there is nothing at 'nowhere'"),
        (('--config.source.uri=ftp:somewhere',), "there is nothing at 'ftp:somewhere'"),
        (
            ('--config.source.uri=config:configs/absent.py',),
            "there is no config file 'configs/absent.py'",
        ),
        (
            ('--config.source.uri=SOURCE', '--config.model.hidden=32'),
            'transfer.reset',
        ),
        (
            ('--config.source.uri=SOURCE', '--config.transfer.reset=("haed/.*",)'),
            'haed',
        ),
    ],
)
def test_wrong_values(launch, source, tmp_path, arguments, said):
    arguments = [word.replace('SOURCE', str(source)) for word in arguments]
    assert said in launch.refused(*TRAIN, f'--workdir={tmp_path / "run"}', *arguments)


@pytest.fixture(scope='module')
def source(launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('mistakes') / 'source'
    launch.ok(*TRAIN, f'--workdir={workdir}', '--quiet')
    return workdir


@pytest.mark.parametrize(
    ('rules', 'said'),
    [
        ("[('head/.*', {})]", "no rule matches the leaf 'backbone/convs/0/bias'"),
        ("[('haed/.*', {}), ('.*', None)]", "the rule 'haed/.*' matches no leaf"),
        ("[('.*', None), ('head/.*', {})]", 'is never reached'),
        ("[('.*', None)]", 'every leaf is frozen'),
    ],
    ids=['uncovered', 'dead', 'shadowed', 'frozen'],
)
def test_wrong_rules(launch, source, tmp_path, rules, said):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(
        textwrap.dedent(f"""
        from configs import digits
        def get_config(arg=''):
            config = digits.get_config('zero_to_four')
            config.source.uri = {str(source)!r}
            config.transfer.policy = [dict(rules={rules})]
            return config
        """)
    )
    command = 'train' if 'haed' in rules else 'inspect'
    error = launch.refused(command, f'--config={recipe}', f'--workdir={tmp_path / "run"}')
    assert said in error
    assert 'config.transfer.policy' in error
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('command', ['train', 'compare'])
def test_an_unwritable_workdir(launch, tmp_path, command):
    (tmp_path / 'file').write_text('in the way')
    said = launch.refused(command, '--config=configs/digits.py', f'--workdir={tmp_path}/file/run')
    assert f'--workdir={tmp_path}/file/run cannot be written' in said


@pytest.mark.parametrize('command', ['evaluate', 'predict'])
def test_a_workdir_without_a_model(launch, tmp_path, command):
    own = [f'--input={tmp_path}'] if command == 'predict' else []
    said = launch.refused(command, TRAIN[1], f'--workdir={tmp_path}', *own)
    assert 'holds no trained model' in said


@pytest.mark.slow
def test_a_config_is_found_from_any_folder_and_in_the_workdir(launch, source, tmp_path):
    for words in (('inspect', TRAIN[1], '--workdir=run'), ('evaluate', f'--workdir={source}')):
        done = subprocess.run(
            launch.command(*words), env=launch.env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_full_disk_is_no_traceback_and_loses_nothing(launch, tmp_path):
    workdir = tmp_path / 'run'
    arguments = (*TRAIN, '--config.train.save_every=5', f'--workdir={workdir}', '--quiet')
    # A limit on the size of files stands for the full disk: writes beyond it fail likewise. Set by
    # a program in between, since a fork of this process, which runs jax, may hang.
    limited = (
        'import os, resource, sys; '
        'resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); '
        'os.execv(sys.argv[1], sys.argv[1:])'
    )
    command = launch.command(*arguments, '--config.model.hidden=2048', '--nocache')
    done = subprocess.run(
        [sys.executable, '-c', limited, *command],
        env=launch.env,
        cwd=tmp_path.parents[0],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert 'no room on the disk' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (workdir / 'model' / 'card.json').exists()
    launch.ok(*arguments, '--config.model.hidden=2048')


@pytest.mark.parametrize('command', ['', 'compare', 'predict'])
def test_help(launch, command):
    done = launch.ok(*([command] if command else []), '--help')
    assert 'Usage' in done.stdout
    if command:
        assert '--workdir' in done.stdout
        assert 'optim.lr' in done.stdout


def test_inspect_shows_every_leaf(launch, tmp_path):
    done = launch.ok('inspect', '--config=configs/digits.py:new_classes', f'--workdir={tmp_path}')
    for word in ('loaded', 'reset', 'unused', 'head/kernel', 'floating-point operations'):
        assert word in done.stdout
    assert not list(tmp_path.iterdir())
