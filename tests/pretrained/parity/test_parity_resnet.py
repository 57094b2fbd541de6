"""ResNets against torchvision's, timm's and transformers' own, and the CIFAR ones against a
transcription.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from parity_support import Case, batch_of, built, check, error, ours, scheme_of

from tljax import trees
from tljax.pretrained import porter
from tljax.pretrained.porters import cifar_resnet, resnet

# Odd, and different: a padding that 'SAME' would put elsewhere shows.
PICTURE = {'image': (45, 34, 3)}
DEPTHS = (18, 34, 50, 101, 152)
CASES = tuple(
    Case(f'resnet{depth}_{scheme}', 'resnet', {'depth': depth}, PICTURE, 7, scheme)
    for depth in (18, 50)
    for scheme in ('torchvision', 'huggingface')
)
CIFAR = tuple(
    Case(
        f'cifar_resnet20_{shortcut}',
        'cifar_resnet',
        {'depth': 20, 'shortcut': shortcut},
        {'image': (31, 31, 3)},
        10,
        'akamaster',
    )
    for shortcut in ('pad', 'projection')
)


def transformers_resnet(depth, outputs=1000):
    transformers = pytest.importorskip('transformers')
    basic = depth < 50
    config = transformers.ResNetConfig(
        depths=list(resnet.BLOCKS[depth]),
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        layer_type='basic' if basic else 'bottleneck',
        num_labels=outputs,
    )
    return transformers.ResNetForImageClassification(config)


def original(scheme, depth, outputs, torchvision):
    if scheme == 'huggingface':
        return transformers_resnet(depth, outputs)
    return torchvision.models.get_model(f'resnet{depth}', num_classes=outputs)


def call(module, batch):
    output = module(batch['image'])
    return getattr(output, 'logits', output)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_same_function(case, torchvision):
    check(case, original(case.scheme, case.arguments['depth'], 7, torchvision).eval(), call)


def test_timm_has_the_same_names_and_function(torchvision):
    timm = pytest.importorskip('timm')
    check(CASES[0], timm.create_model('resnet18', num_classes=7).eval(), call)


@pytest.mark.parametrize('source', ['torchvision', 'timm', 'huggingface'])
@pytest.mark.parametrize('depth', DEPTHS)
def test_every_name_and_shape_of_the_full_size(depth, source, torchvision):
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        if source == 'timm':
            module = pytest.importorskip('timm').create_model(f'resnet{depth}')
        else:
            module = original(source, depth, 1000, torchvision)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    scheme = 'huggingface' if source == 'huggingface' else 'torchvision'
    example = {'image': (224, 224, 3)}
    case = Case('full', 'resnet', {'depth': depth}, example, 1000, scheme)
    found = ported(case, shapes)
    assert resnet.arguments(found, {}) == {'depth': depth, 'outputs': 1000, 'example': example}


def ported(case, shapes):
    """Our shapes of a file's, having checked that all are ported to all that the model has."""
    match = porter.match(scheme_of(case), shapes)
    found = match.shapes(shapes)
    expected = built(case).shapes()
    expected = trees.flatten(expected['params']) | trees.flatten(expected['batch_stats'])
    assert found == {path: leaf.shape for path, leaf in expected.items()}
    assert not match.unread
    assert not match.faults
    assert all(name.endswith('num_batches_tracked') for name in match.skipped)
    return found


def test_a_file_without_a_head_or_with_another_prefix():
    transformers = pytest.importorskip('transformers')
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        bare = transformers.ResNetModel(transformers.ResNetConfig()).state_dict()
        full = transformers_resnet(50).state_dict()
    scheme = resnet.SCHEMES[1]
    bare_shapes = {name: tuple(value.shape) for name, value in bare.items()}
    full_shapes = {f'module.{name}': tuple(value.shape) for name, value in full.items()}
    headless = porter.match(scheme, bare_shapes).shapes(bare_shapes)
    headed = porter.match(scheme, full_shapes).shapes(full_shapes)
    assert headed.keys() - headless.keys() == {'head/kernel', 'head/bias'}
    assert resnet.arguments(headless, {})['depth'] == 50


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ({'architecture': 'resnetblur50'}, 'blurs before it leaves pixels out'),
        ({'architecture': 'resnetaa50'}, 'blurs before it leaves pixels out'),
        ({'downsample_in_bottleneck': True}, 'downsample_in_bottleneck is True'),
        ({'hidden_act': 'silu'}, "hidden_act is 'silu'"),
    ],
)
def test_networks_with_the_same_names_and_another_function_are_refused(config, said):
    case = CASES[2]
    expected = built(case).shapes()
    shapes = {path: leaf.shape for path, leaf in trees.flatten(expected['params']).items()}
    assert resnet.arguments(shapes, {'architecture': 'resnet50'})['depth'] == 50
    with pytest.raises(ValueError, match=said):
        resnet.arguments(shapes, config)


def test_stages_that_no_resnet_has():
    shapes = {f'backbone/stage{s}/block0/conv1/kernel': (3, 3, 64, 64) for s in (1, 2, 3, 4)}
    with pytest.raises(ValueError, match=r'stages of \(1, 1, 1, 1\) basic blocks'):
        resnet.arguments(shapes, {})
    with pytest.raises(ValueError, match='three stages of n blocks'):
        cifar_resnet.arguments(shapes, {})


def cifar_transcription(depth, shortcut, outputs=10):
    """Section 4.2 of He et al. 2016 in plain PyTorch, under the names of its open weights."""
    torch = pytest.importorskip('torch')
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.stride, self.added = stride, width - inputs
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            if self.added and shortcut == 'projection':
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def around(self, x):
            if not self.added:
                return x
            if shortcut == 'projection':
                return self.shortcut(x)
            side = self.added // 2
            return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(self.bn2(self.conv2(y)) + self.around(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            inputs = 16
            for s, width in enumerate((16, 32, 64), 1):
                blocks = []
                for b in range(depth // 6):
                    blocks.append(Block(inputs, width, 2 if s > 1 and b == 0 else 1))
                    inputs = width
                setattr(self, f'layer{s}', nn.Sequential(*blocks))
            self.linear = nn.Linear(64, outputs)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean((2, 3)))

    return Net()


@pytest.mark.parametrize('case', CIFAR, ids=lambda case: case.name)
def test_same_function_cifar(case):
    check(case, cifar_transcription(20, case.arguments['shortcut']).eval(), call)


@pytest.mark.parametrize('depth', [20, 32, 44, 56, 110])
def test_arguments_from_a_cifar_file(depth):
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        state = cifar_transcription(depth, 'pad').state_dict()
    shapes = {f'module.{name}': tuple(value.shape) for name, value in state.items()}
    case = dataclasses.replace(CIFAR[0], arguments={'depth': depth})
    assert cifar_resnet.arguments(ported(case, shapes), {}) == {
        'depth': depth,
        'shortcut': 'pad',
        'outputs': 10,
        'example': {'image': (32, 32, 3)},
    }


@pytest.mark.realdata
@pytest.mark.parametrize('ending', ['th', 'npz'])
def test_published_resnet20_gives_the_logits_of_a_transcription(ending):
    torch = pytest.importorskip('torch')
    root = Path(os.environ.get('TLJAX_REALDATA', '../shared/data'))
    path = root / 'weights' / 'resnet_cifar10' / f'resnet20-12fca82f.{ending}'
    if not path.exists():
        pytest.skip(f'there is no {path}')
    if ending == 'th':
        state = torch.load(path, map_location='cpu', weights_only=True)['state_dict']
    else:
        state = {name: torch.from_numpy(value) for name, value in np.load(path).items()}
    arrays = {name: value.numpy() for name, value in state.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    case = dataclasses.replace(CIFAR[0], example={'image': (32, 32, 3)})
    ported(case, shapes)
    leaves = porter.match(scheme_of(case), shapes).read(arrays)

    module = cifar_transcription(20, 'pad').eval()
    bare = {name.removeprefix('module.'): value for name, value in state.items()}
    missing = module.load_state_dict(bare, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith('num_batches_tracked') for name in missing.missing_keys)
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = module(picture).numpy()
    assert np.ptp(expected) > 1
    assert error(ours(case, leaves), expected) < 1e-5
