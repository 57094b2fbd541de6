"""Which architecture a file is of: every scheme finds itself, and nothing is left over."""

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from parity_support import GOLDENS, Case, golden_files, leaves_of, scheme_of

from tljax import models
from tljax.errors import UserError
from tljax.pretrained import porter
from tljax.pretrained.identify import identify


@dataclasses.dataclass(frozen=True)
class Tensor:
    array: np.ndarray

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype

    def read(self):
        return self.array


@dataclasses.dataclass(frozen=True)
class Weights:
    tensors: dict
    config: dict = dataclasses.field(default_factory=dict)
    metadata: dict = dataclasses.field(default_factory=dict)
    files: tuple = (Path('some.file'),)
    format: str = 'made up'


def weights_of(arrays, **rest):
    return Weights({name: Tensor(np.asarray(array)) for name, array in arrays.items()}, **rest)


def case_of(path):
    return Case(**json.loads(path.read_text())['case'])


def filled(case):
    """All arguments of a case's model."""
    arguments = {**models.arguments(case.model), **case.arguments}
    arguments.pop('name')
    return json.loads(json.dumps(arguments))


def stated(case):
    """What a file that tljax exported says of its model."""
    about = {'model': case.model, 'arguments': filled(case)}
    return {'tljax': json.dumps({**about, 'outputs': case.outputs, 'example': case.example})}


@pytest.mark.parametrize('path', golden_files())
def test_every_scheme_finds_itself_and_gives_back_the_leaves(path):
    case = case_of(path)
    leaves = leaves_of(case)
    theirs = porter.unport(leaves, scheme_of(case), filled(case))
    found = identify(weights_of(theirs, metadata=stated(case)))
    assert (found.model, found.guessed, found.outputs) == (case.model, (), case.outputs)
    assert json.loads(json.dumps(found.arguments)) == filled(case)
    back = found.read()
    assert back.keys() == leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(back[name], leaf, err_msg=name)
    assert all(leaf.flags.c_contiguous and leaf.flags.owndata for leaf in back.values())


@pytest.mark.parametrize('path', golden_files())
def test_what_is_told_is_right_and_the_rest_is_called_a_guess(path):
    """From names and shapes alone, as of a file that nobody describes."""
    case = case_of(path)
    theirs = porter.unport(leaves_of(case), scheme_of(case), filled(case))
    if case.model == 'wav2vec2':  # strides that are not the published ones cannot be told
        with pytest.raises(UserError, match=r'config\.json'):
            identify(weights_of(theirs))
        return
    implied = scheme_of(case).fixed
    if any(filled(case)[key] != value for key, value in implied.items()):
        return  # drawn for a size that no file of this scheme has
    found = identify(weights_of(theirs))
    assert found.model == case.model
    told = {k: v for k, v in found.arguments.items() if k not in found.guessed}
    wanted = {key: filled(case)[key] for key in told}
    assert json.loads(json.dumps(told)) == wanted


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ({'model_type': 'roberta'}, "model_type is 'roberta'"),
        ({'is_decoder': True}, 'is_decoder is set'),
        ({'layer_norm_eps': 'x'}, "layer_norm_eps is 'x'; it takes a positive number"),
        (
            {'num_attention_heads': '2'},
            "num_attention_heads is '2'; it takes a positive whole number",
        ),
        ({'hidden_act': ['gelu']}, "hidden_act is ['gelu']; it takes a text"),
        ({'pooling': 3}, 'pooling is 3; it takes an object'),
    ],
)
def test_configs_of_something_else_or_without_sense(config, said):
    case = case_of(GOLDENS / 'bert.json')
    theirs = porter.unport(leaves_of(case), scheme_of(case), filled(case))
    with pytest.raises(UserError) as caught:
        identify(weights_of(theirs, config=config), 'bert')
    assert said in str(caught.value)


@pytest.fixture
def resnet():
    """A small ResNet under torchvision's names."""
    case = Case('x', 'resnet', {'depth': 18}, {'image': (32, 32, 3)}, 10, 'torchvision')
    return porter.unport(leaves_of(case), scheme_of(case), {})


def check_refused(arrays, *words, model=''):
    with pytest.raises(UserError) as caught:
        identify(weights_of(arrays), model)
    for word in words:
        assert word in str(caught.value)


def test_size_is_found_from_the_names(resnet):
    found = identify(weights_of(resnet))
    assert (found.model, found.scheme, found.outputs) == ('resnet', 'torchvision', 10)
    assert found.arguments == {'depth': 18}
    assert found.shapes['head/kernel'].shape == (512, 10)


def test_a_head_may_be_absent(resnet):
    body = {name: array for name, array in resnet.items() if not name.startswith('fc.')}
    assert identify(weights_of(body)).outputs == 0


def test_half_precision_becomes_float32_exactly(resnet):
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        half = {name: array.astype(dtype) for name, array in resnet.items()}
        leaf = identify(weights_of(half)).read()['backbone/stem/kernel']
        assert leaf.dtype == np.float32
        expected = half['conv1.weight'].transpose(2, 3, 1, 0).astype(np.float32)
        np.testing.assert_array_equal(leaf, expected)


def test_quantised_weights_are_check_refused(resnet):
    resnet['conv1.weight'] = resnet['conv1.weight'].astype(np.int8)
    check_refused(resnet, 'conv1.weight is int8', 'quantised', 'some.file')


def test_another_architecture_is_named(resnet):
    check_refused(
        resnet, "is a resnet (torchvision names), but config.model.name is 'vit'", model='vit'
    )


def test_a_missing_tensor_is_named(resnet):
    del resnet['layer3.1.bn2.running_var']
    check_refused(
        resnet,
        'Nearest is resnet with torchvision names',
        'Leaves without a tensor: backbone/stage3/block1/norm2/var',
    )


def test_an_unknown_tensor_is_named(resnet):
    resnet['layer1.0.se.weight'] = np.zeros(3, np.float32)
    check_refused(resnet, 'fits no naming scheme', 'Unknown to it: layer1.0.se.weight')


def test_another_shape_is_named(resnet):
    resnet['layer1.0.conv1.weight'] = np.zeros((64, 64, 5, 5), np.float32)
    check_refused(resnet, 'backbone/stage1/block0/conv1/kernel (5, 5, 64, 64)')


def test_a_file_of_something_else():
    check_refused({'a.b': np.zeros(2)}, 'None of its 1 names is known', 'a.b', 'resnet')
    check_refused({}, 'holds no tensors')
