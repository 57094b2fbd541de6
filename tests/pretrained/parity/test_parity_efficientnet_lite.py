"""EfficientNet-Lite0 against geffnet's and timm's own, of both paddings and both kinds of names."""

import pytest
from parity_support import Case, built, check, scheme_of

from tljax import trees
from tljax.pretrained import porter
from tljax.pretrained.porters import efficientnet_lite

TF = {'padding': 'tf', 'epsilon': 1e-3}
# Even and odd numbers of pixels, in every stage: what pads otherwise shows.
PICTURE = {'image': (77, 52, 3)}
TORCH_CASE = Case('efficientnet_lite_timm', 'efficientnet_lite', {}, PICTURE, 7, 'timm')
TF_CASE = Case('efficientnet_lite_timm_tf', 'efficientnet_lite', TF, PICTURE, 7, 'timm')
FLAT_CASE = Case(
    'efficientnet_lite_flat', 'efficientnet_lite', TF, PICTURE, 7, 'efficientnet_pytorch'
)
CASES = {'efficientnet_lite0': TORCH_CASE, 'tf_efficientnet_lite0': TF_CASE}


def renamed(module):
    """geffnet's module under the names of the package efficientnet_pytorch, its layers the same."""
    torch = pytest.importorskip('torch')

    class Block(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.whole = (block,)
            if hasattr(block, 'conv_pwl'):
                self._expand_conv, self._bn0 = block.conv_pw, block.bn1
                self._depthwise_conv, self._bn1 = block.conv_dw, block.bn2
                self._project_conv, self._bn2 = block.conv_pwl, block.bn3
            else:
                self._depthwise_conv, self._bn1 = block.conv_dw, block.bn1
                self._project_conv, self._bn2 = block.conv_pw, block.bn2

    class EfficientNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = (module,)
            self._conv_stem, self._bn0 = module.conv_stem, module.bn1
            blocks = [block for stage in module.blocks for block in stage]
            self._blocks = torch.nn.ModuleList([Block(block) for block in blocks])
            self._conv_head, self._bn1 = module.conv_head, module.bn2
            self._fc = module.classifier

        def forward(self, x):
            return self.whole[0](x)

    return EfficientNet()


def call(module, batch):
    return module(batch['image'])


@pytest.mark.parametrize('name', CASES)
def test_same_function_as_geffnet(name):
    geffnet = pytest.importorskip('geffnet')
    check(CASES[name], geffnet.create_model(name, num_classes=7).eval(), call)


@pytest.mark.parametrize('name', CASES)
def test_same_function_as_timm(name, torchvision):
    timm = pytest.importorskip('timm')
    check(CASES[name], timm.create_model(name, num_classes=7).eval(), call)


def test_same_function_under_flat_names():
    geffnet = pytest.importorskip('geffnet')
    module = geffnet.create_model('tf_efficientnet_lite0', num_classes=7).eval()
    check(FLAT_CASE, renamed(module).eval(), call)


def full_size(source):
    torch, geffnet = pytest.importorskip('torch'), pytest.importorskip('geffnet')
    with torch.device('meta'):
        module = geffnet.create_model('tf_efficientnet_lite0')
        module = renamed(module) if source == 'efficientnet_pytorch' else module
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize('source', ['timm', 'efficientnet_pytorch'])
def test_every_name_and_shape_of_the_full_size(source):
    case = Case('full', 'efficientnet_lite', {}, {'image': (224, 224, 3)}, 1000, source)
    shapes = full_size(source)
    found = porter.match(scheme_of(case), shapes)
    assert not found.unread
    assert not found.faults
    assert all(name.endswith('num_batches_tracked') for name in found.skipped)
    ours = built(case).shapes()
    leaves = trees.flatten(ours['params']) | trees.flatten(ours['batch_stats'])
    assert found.shapes(shapes) == {path: leaf.shape for path, leaf in leaves.items()}


def test_the_flat_names_are_those_of_tensorflow_weights():
    scheme = scheme_of(FLAT_CASE)
    assert scheme.fixed == TF


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ({}, {'padding': 'torch', 'epsilon': 1e-5}),
        ({'architecture': 'efficientnet_lite0'}, {'padding': 'torch', 'epsilon': 1e-5}),
        ({'architecture': 'tf_efficientnet_lite0'}, TF),
    ],
)
def test_arguments(config, expected):
    shapes = {'backbone/stem/kernel': (3, 3, 3, 32), 'head/bias': (10,)}
    made = efficientnet_lite.arguments(shapes, config)
    guessed = [] if config else ['padding', 'epsilon']
    rest = {'outputs': 10, 'example': {'image': (224, 224, 3)}, 'guessed': guessed}
    assert made == {**expected, **rest}
