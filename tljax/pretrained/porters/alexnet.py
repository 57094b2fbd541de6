"""AlexNet as torchvision names it."""

from collections.abc import Mapping
from typing import Any

from tljax.pretrained.porter import Row, Scheme, linear_rows

CONVS = (0, 3, 6, 8, 10)  # places of the convolutions among their layers

SCHEMES = (
    Scheme(
        name='torchvision',
        model='alexnet',
        rows=(
            *(
                row
                for n, place in enumerate(CONVS, 1)
                for row in (
                    Row(f'features.{place}.weight', f'backbone/conv{n}/kernel', 'conv'),
                    Row(f'features.{place}.bias', f'backbone/conv{n}/bias'),
                )
            ),
            *linear_rows('classifier.1', 'backbone/hidden1'),
            *linear_rows('classifier.4', 'backbone/hidden2'),
            *linear_rows('classifier.6', 'head'),
        ),
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves.

    Raises:
      KeyError: the first convolution or the last hidden layer is missing.
    """
    return dict(
        hidden=shapes['backbone/hidden2/kernel'][1],
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (224, 224, shapes['backbone/conv1/kernel'][2])},
    )
