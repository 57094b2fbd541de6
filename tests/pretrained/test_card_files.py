"""Every card on the shelf: complete, buildable, and without a made-up field."""

import re
import tomllib

import jax
import numpy as np
import pytest

from tljax import models
from tljax.pretrained import shelf
from tljax.pretrained.attempt import PORTERS, all_schemes
from tljax.pretrained.inputs import IMAGE

FILES = sorted(shelf.CARDS.glob('*.toml'))
WRITTEN = ('name', 'title', 'task', 'modality', 'architecture', 'scheme', 'uris', 'licence')
EXAMPLES = {
    'image': {'image': jax.ShapeDtypeStruct((224, 224, 3), np.uint8)},
    'text': {'tokens': jax.ShapeDtypeStruct((16,), np.int32)},
    'audio': {'audio': jax.ShapeDtypeStruct((16000,), np.float32)},
}


def test_the_shelf_is_not_empty():
    assert len(FILES) > 20
    assert {shelf.read(path).architecture for path in FILES} == set(PORTERS)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_card_is_complete(path):
    content = tomllib.loads(path.read_text())
    assert set(WRITTEN) <= content.keys()
    assert content['name'] == path.stem
    card = shelf.read(path)
    assert all((card.uris, card.licence, card.training_data, card.input))
    assert card.architecture in PORTERS
    assert card.scheme in {s.name for s in all_schemes() if s.model == card.architecture}
    for uri in card.uris:
        head, hashed, digest = uri.partition('#sha256=')
        assert re.fullmatch(r'(url:https://\S+|hf://[\w.-]+/[\w.-]+|package:\w+|[\w.-]+)', head)
        assert not hashed or re.fullmatch('[0-9a-f]{8,64}', digest)
        if head.startswith('url:'):
            assert digest
    for metric in card.metrics:
        assert metric.keys() == {'name', 'value', 'dataset', 'source'}
        assert all(metric.values())


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_what_a_card_declares_can_be_built_and_applied(path):
    card = shelf.read(path)
    outputs = card.classes or dict(card.input).get('vocabulary', 2)
    config = {'name': card.architecture, **card.arguments}
    assert models.build(config, EXAMPLES[card.modality], outputs).shapes()['params']
    if card.modality == 'image':
        assert card.input.keys() == set(IMAGE)
        assert len(card.input['mean']) == len(card.input['std']) == card.input['channels'] == 3
        assert card.input['resize'] == 0 or card.input['resize'] >= card.input['image_size']
    elif card.modality == 'text':
        assert card.input.keys() == {'tokenizer', 'vocabulary', 'positions', 'lower_case'}
        made = {**models.arguments(card.architecture), **card.arguments}
        for key in ('vocabulary', 'positions'):
            assert card.input[key] == made[key]
    else:
        assert card.input.keys() == {'sampling_rate', 'normalisation'}


def test_no_two_cards_describe_the_same_weights():
    keys = [shelf.key_of(uri) for path in FILES for uri in shelf.read(path).uris]
    assert len(keys) == len(set(keys))
