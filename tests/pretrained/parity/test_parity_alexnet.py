"""AlexNet against torchvision's own, and against a transcription where that isn't installed."""

import pytest
from parity_support import Case, built, check, scheme_of

from tljax import trees
from tljax.pretrained import porter
from tljax.pretrained.porters import alexnet

# 63 leaves one pixel for the 6 x 6 means, 131 leaves three.
HIDDEN = 32  # instead of 4096, for speed; the names and shapes of the full size are tested too
CASE = Case(
    'alexnet_torchvision',
    'alexnet',
    {'hidden': HIDDEN},
    {'image': (63, 131, 3)},
    7,
    'torchvision',
)


def transcription(outputs, hidden):
    """torchvision's AlexNet from its printed form."""
    torch = pytest.importorskip('torch')
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 64, 11, 4, 2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(64, 192, 5, 1, 2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(192, 384, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(384, 256, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(256, 256, 3, 1, 1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
            )
            self.pool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Dropout(),
                nn.Linear(256 * 6 * 6, hidden),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, outputs),
            )

        def forward(self, x):
            return self.classifier(self.pool(self.features(x)).flatten(1))

    return Net()


def call(module, batch):
    return module(batch['image'])


def test_same_function_as_the_transcription():
    check(CASE, transcription(7, HIDDEN).eval(), call)


def test_same_function_as_torchvision(torchvision):
    linear = pytest.importorskip('torch').nn.Linear
    module = torchvision.models.alexnet(num_classes=7)
    module.classifier[1] = linear(256 * 6 * 6, HIDDEN)
    module.classifier[4] = linear(HIDDEN, HIDDEN)
    module.classifier[6] = linear(HIDDEN, 7)
    check(CASE, module.eval(), call)


def test_every_name_and_shape_of_the_full_size(torchvision):
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        state = torchvision.models.alexnet().state_dict()
    shapes = {f'module.{name}': tuple(value.shape) for name, value in state.items()}
    case = Case('full', 'alexnet', {}, {'image': (224, 224, 3)}, 1000, 'torchvision')
    match = porter.match(scheme_of(case), shapes)
    found = match.shapes(shapes)
    expected = trees.flatten(built(case).shapes()['params'])
    assert found == {path: leaf.shape for path, leaf in expected.items()}
    assert not match.unread
    assert not match.skipped
    assert not match.faults
    assert alexnet.arguments(found, {}) == {
        'hidden': 4096,
        'outputs': 1000,
        'example': {'image': (224, 224, 3)},
    }
