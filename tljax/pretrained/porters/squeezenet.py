"""SqueezeNet 1.1 as torchvision names it, and as Keras does."""

from collections.abc import Mapping
from typing import Any

from tljax.models.squeezenet import FIRES
from tljax.pretrained.porter import Row, Scheme

# Place of each fire module in torchvision's `features`, among the poolings.
PLACES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
# Its three convolutions: torchvision's name, Keras's, ours.
CONVS = (
    ('squeeze', 'squeeze1x1', 'squeeze'),
    ('expand1x1', 'expand1x1', 'expand1'),
    ('expand3x3', 'expand3x3', 'expand3'),
)


def torchvision_rows() -> tuple[Row, ...]:
    rows = [
        Row('features.0.weight', 'backbone/stem/kernel', 'conv'),
        Row('features.0.bias', 'backbone/stem/bias'),
    ]
    for n in FIRES:
        for theirs, _, ours in CONVS:
            name, path = f'features.{PLACES[n]}.{theirs}', f'backbone/fire{n}/{ours}'
            rows += [Row(f'{name}.weight', f'{path}/kernel', 'conv')]
            rows += [Row(f'{name}.bias', f'{path}/bias')]
    rows += [Row('classifier.1.weight', 'head/kernel', 'conv_linear')]
    rows += [Row('classifier.1.bias', 'head/bias')]
    return tuple(rows)


def keras_rows() -> tuple[Row, ...]:
    """Paths of the arrays in the .h5 file, which counts its kernels from 1 on.

    The files that are known end before the classifier; its names follow from the others'.
    """
    layers = [('conv1', 'backbone/stem', 'conv_bgr')]
    for n in FIRES:
        layers += [
            (f'fire{n}/{keras}', f'backbone/fire{n}/{ours}', 'same') for _, keras, ours in CONVS
        ]
    layers += [('conv10', 'head', 'hwio_linear')]
    rows = []
    for count, (name, path, transform) in enumerate(layers, 1):
        rows += [Row(f'{name}/uniform{count}', f'{path}/kernel', transform)]
        rows += [Row(f'{name}/{name}_b', f'{path}/bias')]
    return tuple(rows)


def npz_rows() -> tuple[Row, ...]:
    """Names of the same arrays in an .npz file."""
    rows = [
        Row('conv1.kernel', 'backbone/stem/kernel', 'conv_bgr'),
        Row('conv1.bias', 'backbone/stem/bias'),
    ]
    for _, keras, ours in CONVS:
        name, path = f'fire{{n}}/{keras}', f'backbone/fire{{n}}/{ours}'
        rows += [Row(f'{name}.kernel', f'{path}/kernel'), Row(f'{name}.bias', f'{path}/bias')]
    rows += [Row('conv10.kernel', 'head/kernel', 'hwio_linear'), Row('conv10.bias', 'head/bias')]
    return tuple(rows)


# Keras's were converted from Caffe's, which read blue, green and red; ours read red first. Its
# poolings leave out windows that reach over the far edge.
KERAS: dict[str, Any] = dict(model='squeezenet', fixed={'ceil_mode': False})
SCHEMES = (
    Scheme('torchvision', 'squeezenet', torchvision_rows(), fixed={'ceil_mode': True}),
    Scheme('keras', rows=keras_rows(), **KERAS),
    Scheme('keras_npz', rows=npz_rows(), **KERAS),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves; a config.json tells nothing of it."""
    return dict(
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (224, 224, shapes['backbone/stem/kernel'][2])},
    )
