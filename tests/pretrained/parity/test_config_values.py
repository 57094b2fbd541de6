"""A config.json that makes no sense: each porter names the key, and what it takes."""

import importlib
import json

import pytest
from parity_support import GOLDENS, Case, leaves_of

from tljax.errors import UserError
from tljax.pretrained import attempt
from tljax.pretrained.porters import config

NAN = float('nan')
WRONG = {
    'bert': {
        'num_attention_heads': (None, '2', 2.0, 0, -1, True, [2], {}),
        'n_heads': (None, '2'),
        'layer_norm_eps': (None, 'x', NAN, 0, -1e-6, True),
        'hidden_act': (None, ['gelu'], {}, 3),
        'pooling': (None, 3, ['pooling_mode_mean_tokens']),
    },
    'gpt2': {
        'n_head': (None, '2', 1.5, 0),
        'layer_norm_epsilon': (None, 'x', NAN),
        'activation_function': (None, ['gelu']),
    },
    'vit_timm': {
        'image_size': (None, 'x', 32.5, -32, True, [32], [32, 32, 3], [32.5, 32], {}),
        'model_args': (None, 3),
        'architecture': (None, 3),
        'layer_norm_eps': (None, 'x'),
        'hidden_act': (None, {}),
    },
    'wav2vec2': {
        'conv_stride': (None, 'x', 3, ['a', 'a', 'a'], [2.5, 2, 2], [0, 2, 2]),
        'do_stable_layer_norm': (None, 'x', 1),
        'hidden_act': (None, ['gelu']),
        'feat_extract_activation': (None, 3),
        'num_attention_heads': (None, '2'),
        'layer_norm_eps': (None, 'x'),
    },
    'efficientnet_lite_timm': {'architecture': (None, 3)},
    'resnet18_torchvision': {'architecture': (None, 3)},
}


def told(golden, beside):
    """What a porter makes of a golden file's leaves and such a config."""
    case = Case(**json.loads((GOLDENS / f'{golden}.json').read_text())['case'])
    module = importlib.import_module(f'tljax.pretrained.porters.{case.model}')
    return module.arguments({path: leaf.shape for path, leaf in leaves_of(case).items()}, beside)


@pytest.mark.parametrize(
    ('golden', 'key'), [(golden, key) for golden, keys in WRONG.items() for key in keys]
)
def test_a_value_of_the_wrong_kind_is_named(golden, key):
    enough = {'conv_stride': [5, 2, 2]} if golden == 'wav2vec2' else {}
    told(golden, enough)
    for value in WRONG[golden][key]:
        with pytest.raises(UserError) as caught:
            told(golden, {**enough, key: value})
        assert str(caught.value).startswith(f'config.json: {key} is {value!r}; it takes ')


def test_what_an_empty_config_does_not_tell_of_efficientnet_is_a_guess():
    assert told('efficientnet_lite_timm', {})['guessed'] == ['padding', 'epsilon']
    made = told('efficientnet_lite_timm', {'architecture': 'tf_efficientnet_lite0'})
    assert (made['guessed'], made['padding'], made['epsilon']) == ([], 'tf', 1e-3)


def test_a_long_value_is_not_shown_whole():
    with pytest.raises(UserError) as caught:
        config.text({'hidden_act': ['gelu'] * 1000}, 'hidden_act', '')
    assert len(str(caught.value)) < 150


def test_it_is_no_porter():
    assert 'config' not in attempt.PORTERS
