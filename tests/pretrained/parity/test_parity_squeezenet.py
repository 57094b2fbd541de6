"""SqueezeNet 1.1 against torchvision's, and a transcription with the names of each kind of file."""

import numpy as np
import pytest
from parity_support import Case, built, check, scheme_of

from tljax import trees
from tljax.pretrained import porter
from tljax.pretrained.porters import squeezenet

# At each of these sizes a pooling has a window that reaches over an edge.
PICTURE = {'image': (51, 42, 3)}
CASES = tuple(
    Case(f'squeezenet_{scheme}', 'squeezenet', {'ceil_mode': ceil}, PICTURE, 40, scheme)
    for scheme, ceil in (('torchvision', True), ('keras', False), ('keras_npz', False))
)
FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}


def convolutions(outputs):
    """Name in the paper -> shape of the kernel, HWIO."""
    shapes, inputs = {'conv1': (3, 3, 3, 64)}, 64
    for n, few in FIRES.items():
        shapes[f'fire{n}/squeeze1x1'] = (1, 1, inputs, few)
        shapes[f'fire{n}/expand1x1'] = (1, 1, few, 4 * few)
        shapes[f'fire{n}/expand3x3'] = (3, 3, few, 4 * few)
        inputs = 8 * few
    return {**shapes, 'conv10': (1, 1, inputs, outputs)}


def names_in(scheme, layer, count):
    """What a file calls the kernel and the bias of a convolution, the `count`th."""
    if scheme == 'keras':
        return f'{layer}/uniform{count}', f'{layer}/{layer}_b'
    if scheme == 'keras_npz':
        return f'{layer}.kernel', f'{layer}.bias'
    fire, _, part = layer.partition('/')
    places = {'conv1': 'features.0', 'conv10': 'classifier.1'}
    for n, place in zip(FIRES, (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        places[f'fire{n}'] = f'features.{place}'
    name = f'{places[fire]}.{part.removesuffix("1x1") if part == "squeeze1x1" else part}'.rstrip(
        '.'
    )
    return f'{name}.weight', f'{name}.bias'


def transcription(scheme, outputs):
    """The paper's network in plain PyTorch; its parameters have a file's names and layouts."""
    torch = pytest.importorskip('torch')
    functional, nn = torch.nn.functional, torch.nn
    keras = scheme != 'torchvision'

    def put(module, name, parameter):
        first, _, rest = name.partition('.')
        if rest:
            if first not in module._modules:
                module.add_module(first, nn.Module())
            put(module._modules[first], rest, parameter)
        else:
            module.register_parameter(first, parameter)

    class SqueezeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = {}
            for count, (layer, shape) in enumerate(convolutions(outputs).items(), 1):
                kernel = nn.Parameter(torch.zeros(*shape))
                if not keras:
                    kernel = nn.Parameter(kernel.detach().permute(3, 2, 0, 1).contiguous())
                bias = nn.Parameter(torch.zeros(shape[-1]))
                for name, parameter in zip(
                    names_in(scheme, layer, count), (kernel, bias), strict=True
                ):
                    put(self, name, parameter)
                self.layers[layer] = kernel, bias

        def conv(self, layer, x, stride=1, padding=0):
            kernel, bias = self.layers[layer]
            kernel = kernel.permute(3, 2, 0, 1) if keras else kernel
            return functional.relu(functional.conv2d(x, kernel, bias, stride, padding))

        def forward(self, x):
            x = self.conv('conv1', x.flip(1) if keras else x, stride=2)
            for n in FIRES:
                if n in (2, 4, 6):
                    x = functional.max_pool2d(x, 3, 2, ceil_mode=not keras)
                x = self.conv(f'fire{n}/squeeze1x1', x)
                one = self.conv(f'fire{n}/expand1x1', x)
                x = torch.cat([one, self.conv(f'fire{n}/expand3x3', x, padding=1)], 1)
            return self.conv('conv10', x).mean((2, 3))

    return SqueezeNet().eval()


def call(module, batch):
    return module(batch['image'])


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_same_function_as_the_paper(case):
    check(case, transcription(case.scheme, case.outputs), call)


def test_same_function_as_torchvision(torchvision):
    check(CASES[0], torchvision.models.squeezenet1_1(num_classes=40).eval(), call)


@pytest.mark.parametrize('size', [227, 64, 17])
def test_same_function_as_torchvision_at_other_sizes(size, torchvision, tmp_path, monkeypatch):
    monkeypatch.setattr('parity_support.GOLDENS', tmp_path)
    monkeypatch.setenv('TLJAX_WRITE_GOLDENS', '1')
    case = Case('size', 'squeezenet', {}, {'image': (size, size, 3)}, 5, 'torchvision')
    check(case, torchvision.models.squeezenet1_1(num_classes=5).eval(), call)


def test_every_name_and_shape_of_the_full_size(torchvision):
    module = torchvision.models.squeezenet1_1()
    case = Case('full', 'squeezenet', {}, {'image': (224, 224, 3)}, 1000, 'torchvision')
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = porter.match(scheme_of(case), shapes)
    assert not found.unread
    assert not found.faults
    assert not found.skipped
    ours = built(case).shapes()
    assert found.shapes(shapes) == {
        p: leaf.shape for p, leaf in trees.flatten(ours['params']).items()
    }
    made = squeezenet.arguments(found.shapes(shapes), {})
    assert made == {'outputs': 1000, 'example': {'image': (224, 224, 3)}}


def test_version_1_0_is_refused(torchvision):
    """It has the same names up to a point, but other places, sizes and a 7x7 first kernel."""
    state = torchvision.models.squeezenet1_0().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    found = porter.match(squeezenet.SCHEMES[0], shapes)
    assert found.unread
    assert np.prod(found.shapes(shapes)['backbone/stem/kernel']) == 7 * 7 * 3 * 96
