"""What is checked of a source before anything is read from it."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tljax import config as config_lib
from tljax import models
from tljax.errors import UserError
from tljax.train import injected_models, sources
from tljax.train.model_dir import save_model

INJECTED = {'source': {'uri': 'x'}, 'transfer': {'policy': 'lora'}}


@pytest.fixture
def config(monkeypatch):
    made = config_lib.default()
    made.model = models.arguments('efficientnet_lite')
    example = {'image': jax.ShapeDtypeStruct((32, 32, 3), np.uint8)}
    target = SimpleNamespace(data=SimpleNamespace(example=example), task=SimpleNamespace(outputs=3))
    monkeypatch.setattr(sources.experiment_lib, 'build', lambda config, source: target)
    return made


def card_of(**changes):
    return {'model': models.arguments('efficientnet_lite', **changes)}


def test_a_model_of_our_own_must_compute_the_same(config):
    sources.check_own(config, card_of(), 'there')
    sources.check_own(config, card_of(dropout=0.5, dtype='bfloat16'), 'there')
    with pytest.raises(UserError) as caught:
        sources.check_own(config, card_of(padding='tf', epsilon=1e-3), 'there')
    assert "--config.model.epsilon=0.001 --config.model.padding='tf'" in str(caught.value)


def test_another_architecture_is_left_to_surgery(config):
    sources.check_own(config, {'model': models.arguments('alexnet')}, 'there')
    sources.check_own(config, {}, 'there')


@pytest.mark.parametrize('uri', ['', 'config:configs/digits.py:source'])
def test_a_card_for_a_source_that_has_its_own_is_refused(uri):
    config = config_lib.default()
    config.source.uri, config.source.card = uri, 'gpt2'
    with pytest.raises(UserError, match=r'config\.source\.card'):
        sources.check_keys(config)


def test_the_sources_own_model_takes_the_place_of_the_configs(config):
    config.model = {'name': 'source', 'widths': (4,)}
    config.source.uri = 'config:configs/digits.py:source'
    full = sources.with_model(config)
    assert full.model.to_dict() == models.arguments('convnet', widths=(32, 64), hidden=64)
    assert config.model.name == 'source'  # what was given is as it was


@pytest.mark.parametrize(
    ('card', 'said'),
    [
        ({}, 'does not tell what model it is'),
        ({'model': {}}, 'does not tell what model it is'),
        ({'model': {'name': 'convnet'}, 'config': INJECTED}, 'does not tell'),
        ({'config': {**INJECTED, 'transfer': {'inject': 5}}}, '5 is no rule'),
    ],
)
def test_a_card_that_tells_too_little_is_refused(config, tmp_path, card, said):
    bias = {'head': {'bias': np.ones(2, np.float32)}}
    save_model(tmp_path / 'model', {'params': bias, 'batch_stats': {}}, card)
    config.source.uri = str(tmp_path)
    read = injected_models.of_card if 'config' in card else None
    with pytest.raises(UserError, match=said):
        read(card) if read else sources.model_of(config.source.uri)


def test_the_sources_own_model_needs_a_source(config):
    config.model = {'name': 'source'}
    with pytest.raises(UserError, match=r'config\.source\.uri is empty'):
        sources.with_model(config)


def test_a_model_that_is_named_stays(config):
    assert sources.with_model(config) is config
