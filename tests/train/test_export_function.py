"""An export carries what the model computes, not only its numbers."""

import json

import numpy as np
import pytest
from parity_support import Case, leaves_of, scheme_of

from tljax import config as config_lib
from tljax import models, pretrained
from tljax.errors import UserError
from tljax.pretrained import inputs, porter
from tljax.train import sources
from tljax.train.export import FORMATS, export

HEADS = dict(width=32, layers=2, heads=4, hidden=64, patch=4)
CASES = {
    'efficientnet_lite': Case(
        'x',
        'efficientnet_lite',
        dict(padding='tf', epsilon=1e-3),
        {'image': (32, 32, 3)},
        5,
        'efficientnet_pytorch',
    ),
    'vit': Case(
        'x',
        'vit',
        {**HEADS, 'pool': 'mean', 'activation': 'gelu_tanh', 'epsilon': 1e-5},
        {'image': (16, 16, 3)},
        5,
        'timm',
    ),
}
CARD = """
name = "made-up"
licence = "CC0"
[input]
image_size = 16
mean = [0.5]
std = [0.25]
"""


@pytest.fixture(params=CASES)
def imported(request, tmp_path):
    """A file that says what it is, and its case."""
    case = CASES[request.param]
    arguments = models.arguments(case.model, **case.arguments)
    rest = {key: value for key, value in arguments.items() if key != 'name'}
    about = {
        'model': case.model,
        'arguments': rest,
        'outputs': case.outputs,
        'example': case.example,
    }
    from safetensors.numpy import save_file

    path = tmp_path / 'weights.safetensors'
    theirs = porter.unport(leaves_of(case), scheme_of(case), arguments)
    metadata = {'tljax': json.dumps(about)}
    save_file({k: np.ascontiguousarray(v) for k, v in theirs.items()}, path, metadata)
    (tmp_path / 'card.toml').write_text(CARD)
    return case, path, rest


@pytest.mark.parametrize('form', FORMATS)
def test_arguments_input_and_licence_come_back(imported, tmp_path, form, monkeypatch):
    case, path, arguments = imported
    load = pretrained.load
    card = str(tmp_path / 'card.toml')
    monkeypatch.setattr(pretrained, 'load', lambda uri: load(uri, card=card))
    output = export(str(path), tmp_path / f'out.{form}', form)
    config = config_lib.default()
    config.source.uri = str(output)
    assert inputs.applied(config).data.std == (0.25,)
    if form == 'orbax':
        assert not sources.is_foreign(str(output))
        held = json.loads((output / 'card.json').read_text())
        assert held['model'] == {'name': case.model, **json.loads(json.dumps(arguments))}
        return
    found, card_found = pretrained.find(str(output))
    assert (found.model, found.guessed) == (case.model, ())
    assert found.arguments == json.loads(json.dumps(arguments))
    assert card_found.licence == 'CC0'


def test_a_scheme_that_means_another_model_is_refused(tmp_path):
    case = Case('x', 'efficientnet_lite', {}, {'image': (32, 32, 3)}, 5, 'timm')
    np.savez(tmp_path / 'torch.npz', **porter.unport(leaves_of(case), scheme_of(case), {}))
    with pytest.raises(UserError, match="its files mean padding='tf', and this model has 'torch'"):
        export(str(tmp_path / 'torch.npz'), tmp_path / 'out', 'npz', 'efficientnet_pytorch')


def test_an_exported_convnet_is_a_source_again(tmp_path):
    """The model of the first command of README.md, for which there is no porter."""
    case = Case('x', 'convnet', dict(widths=(4, 8), hidden=16), {'image': (8, 8, 1)}, 3, '')
    arguments = models.arguments('convnet', **case.arguments)
    arguments.pop('name')
    about = {
        'model': 'convnet',
        'arguments': arguments,
        'outputs': 3,
        'example': case.example,
        'card': {},
    }
    from tljax.train.export import save_npz, save_safetensors

    for save in (save_npz, save_safetensors):
        save(tmp_path / 'convnet', leaves_of(case), json.loads(json.dumps(about)))
        source = pretrained.load(str(tmp_path / 'convnet'), 'convnet')
        assert source.found.arguments['hidden'] == 16
        for path, leaf in leaves_of(case).items():
            np.testing.assert_array_equal(source.leaves[path], leaf)
