"""Defaults, checking, fingerprints and loading of configs."""

import pytest

from tljax import config as config_lib
from tljax.errors import UserError


def recipe(**sections):
    base = {'model': {'name': 'convnet'}, 'data': {'name': 'printed_digits'}}
    return config_lib.resolve({**base, **sections})


def test_defaults_are_filled_in():
    config = recipe(optim={'lr': 0.5})
    assert config.optim.lr == 0.5
    assert config.optim.schedule == 'cosine'
    assert config.train.steps == config_lib.default().train.steps


@pytest.mark.parametrize(
    ('sections', 'said'),
    [
        ({'optim': {'lrr': 1.0}}, "unknown key optim.lrr. Did you mean 'optim.lr'"),
        ({'optimm': {}}, "unknown key 'optimm'. Did you mean 'optim'"),
        ({'optim': {'lr': 'fast'}}, "config.optim.lr takes float, not 'fast'"),
        ({'optim': 3}, 'config.optim is a section'),
        ({'optim': {'lr': -1.0}}, 'config.optim.lr is -1.0; it must be above 0'),
        ({'optim': {'lr': float('nan')}}, 'config.optim.lr is nan'),
        ({'optim': {'schedule': 'cosin'}}, "config.optim.schedule is 'cosin'; it takes one of"),
        ({'train': {'steps': 0}}, 'config.train.steps is 0; it must be 1 or more'),
        ({'train': {'batch_size': 10, 'accumulate': 3}}, 'must be a multiple of'),
        ({'study': {'lr_low': 1.0, 'lr_high': 0.1}}, 'must be below study.lr_high'),
        ({'optim': {'lr': float('inf')}}, 'config.optim.lr is inf'),
        ({'seed': 2**31}, 'must be below'),
        ({'study': {'eval_points': 0}}, 'config.study.eval_points is 0'),
        ({'task': {'label_smoothing': 1.0}}, 'must be below 1'),
        ({'model': {}}, 'config.model.name is missing'),
        ({'data': {'name': ''}}, 'config.data.name is missing'),
        ({'optim': {'lr': None}}, 'config.optim.lr takes float, not None'),
        ({'data': {'holdout': 'all'}}, "config.data.holdout takes float, not 'all'"),
        (
            {'data': {'name': 'table', 'text': 'body', 'dir': 'mail.csv'}},
            "config.data.label is empty, and config.task.name is 'classification': name the column "
            'of the labels in mail.csv',
        ),
        ({'data': {'holdout': None}}, 'config.data.holdout takes float, not None'),
    ],
)
def test_wrong_keys_and_values_are_named(sections, said):
    with pytest.raises(UserError) as caught:
        recipe(**sections)
    assert said in str(caught.value)


def test_fingerprint_ignores_how_and_sees_what():
    one, other = recipe(), recipe()
    other.train.save_every += 1
    other.study.vectorize = 'off'
    other.data.dir = '/elsewhere'
    assert config_lib.fingerprint(one) == config_lib.fingerprint(other)
    assert config_lib.differences(one, other) == []
    other.train.steps += 1
    assert config_lib.fingerprint(one) != config_lib.fingerprint(other)
    assert config_lib.differences(one, other) == ['train.steps: 1000 -> 1001']
    older = config_lib.plain(one)
    del older['prefix']
    assert config_lib.differences(older, one) == []  # a key it didn't know is at its default


def test_fingerprint_survives_json():
    import json

    config = recipe(data={'name': 'printed_digits', 'classes': ('1', '2')})
    read = json.loads(json.dumps(config_lib.plain(config)))
    assert config_lib.fingerprint(config) == config_lib.fingerprint(read)
    assert config_lib.fingerprint(config) == config_lib.fingerprint(config_lib.resolve(read))


def test_policy_may_be_a_list_of_phases():
    phases = [{'rules': [('head/.*', {'lr': 1.0}), ('.*', None)]}]
    config = recipe(transfer={'policy': phases})
    assert config_lib.plain(config)['transfer']['policy'] == phases


def test_load_takes_an_argument(tmp_path):
    file = tmp_path / 'recipe.py'
    file.write_text(
        'from tljax import config as base\n'
        "def get_config(arg=''):\n"
        '    config = base.default()\n'
        "    config.model = dict(name='convnet')\n"
        "    config.data.name = arg or 'none'\n"
        '    return config\n'
    )
    assert config_lib.load(f'{file}:printed_digits').data.name == 'printed_digits'
    with pytest.raises(UserError, match='there is no config file'):
        config_lib.load(str(tmp_path / 'absent.py'))
    (tmp_path / 'empty.py').write_text('')
    with pytest.raises(UserError, match='get_config'):
        config_lib.load(str(tmp_path / 'empty.py'))


@pytest.mark.parametrize('arg', ['', 'source', 'new_classes', 'zero_to_four'])
def test_digits_recipes_resolve(arg):
    config = config_lib.load(f'configs/digits.py:{arg}')
    assert config.model.name == 'convnet'
    assert bool(config.source.uri) == (arg in ('', 'new_classes'))
