"""The small ResNets for CIFAR as github.com/akamaster/pytorch_resnet_cifar10 names them."""

from collections.abc import Mapping
from typing import Any

from tljax.pretrained.porter import BATCHES, Row, Scheme, batch_norm_rows, linear_rows
from tljax.pretrained.porters.resnet import blocks_of

THEIRS, OURS = 'layer{s}.{b}', 'backbone/stage{s}/block{b}'

SCHEMES = (
    Scheme(
        name='akamaster',
        model='cifar_resnet',
        rows=(
            Row('conv1.weight', 'backbone/stem/kernel', 'conv'),
            *batch_norm_rows('bn1', 'backbone/stem_norm'),
            Row(f'{THEIRS}.conv{{c}}.weight', f'{OURS}/conv{{c}}/kernel', 'conv'),
            *batch_norm_rows(f'{THEIRS}.bn{{c}}', f'{OURS}/norm{{c}}'),
            Row(f'{THEIRS}.shortcut.0.weight', f'{OURS}/downsample/kernel', 'conv'),
            *batch_norm_rows(f'{THEIRS}.shortcut.1', f'{OURS}/downsample_norm'),
            *linear_rows('linear', 'head'),
        ),
        skipped=(BATCHES,),
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves.

    Raises:
      ValueError: the stages are not three of the same number of blocks.
    """
    stages = blocks_of(shapes)
    if len(stages) != 3 or len(set(stages)) != 1:
        raise ValueError(f'a CIFAR ResNet has three stages of n blocks, not {stages}')
    projected = 'backbone/stage2/block0/downsample/kernel' in shapes
    return dict(
        depth=6 * stages[0] + 2,
        shortcut='projection' if projected else 'pad',
        outputs=shapes.get('head/bias', (10,))[0],
        example={'image': (32, 32, shapes['backbone/stem/kernel'][2])},
    )
