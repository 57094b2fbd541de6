"""ResNet-18 to 152 as torchvision and timm name them (alike), and as Hugging Face does."""

from collections.abc import Mapping
from typing import Any

from tljax.models.resnet import BLOCKS
from tljax.pretrained.porter import BATCHES, Row, Scheme, batch_norm_rows, linear_rows
from tljax.pretrained.porters.config import text

THEIRS, OURS = 'layer{s}.{b}', 'backbone/stage{s}/block{b}'
THEIR_LAYERS = 'encoder.stages.{s}.layers.{b}'
OUR_LAYERS = 'backbone/stage{s+1}/block{b}'

SCHEMES = (
    Scheme(
        name='torchvision',
        model='resnet',
        rows=(
            Row('conv1.weight', 'backbone/stem/kernel', 'conv'),
            *batch_norm_rows('bn1', 'backbone/stem_norm'),
            Row(f'{THEIRS}.conv{{c}}.weight', f'{OURS}/conv{{c}}/kernel', 'conv'),
            *batch_norm_rows(f'{THEIRS}.bn{{c}}', f'{OURS}/norm{{c}}'),
            Row(f'{THEIRS}.downsample.0.weight', f'{OURS}/downsample/kernel', 'conv'),
            *batch_norm_rows(f'{THEIRS}.downsample.1', f'{OURS}/downsample_norm'),
            *linear_rows('fc', 'head'),
        ),
        skipped=(BATCHES,),
    ),
    Scheme(
        name='huggingface',
        model='resnet',
        rows=(
            Row('embedder.embedder.convolution.weight', 'backbone/stem/kernel', 'conv'),
            *batch_norm_rows('embedder.embedder.normalization', 'backbone/stem_norm'),
            Row(
                f'{THEIR_LAYERS}.layer.{{c}}.convolution.weight',
                f'{OUR_LAYERS}/conv{{c+1}}/kernel',
                'conv',
            ),
            *batch_norm_rows(
                f'{THEIR_LAYERS}.layer.{{c}}.normalization', f'{OUR_LAYERS}/norm{{c+1}}'
            ),
            Row(
                f'{THEIR_LAYERS}.shortcut.convolution.weight',
                f'{OUR_LAYERS}/downsample/kernel',
                'conv',
            ),
            *batch_norm_rows(
                f'{THEIR_LAYERS}.shortcut.normalization', f'{OUR_LAYERS}/downsample_norm'
            ),
            *linear_rows('classifier.1', 'head'),
        ),
        skipped=(BATCHES,),
        backbone_prefix='resnet.',
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      ValueError: no depth has such stages, or the config says that the network computes otherwise
        than its names tell.
    """
    stages = blocks_of(shapes)
    deep = 'backbone/stage1/block0/conv3/kernel' in shapes
    depths = [d for d, blocks in BLOCKS.items() if blocks == stages and (d >= 50) == deep]
    if not depths:
        kind = 'bottleneck' if deep else 'basic'
        raise ValueError(f'no ResNet here has stages of {stages} {kind} blocks')
    check_config(config)
    return dict(
        depth=depths[0],
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (224, 224, shapes['backbone/stem/kernel'][2])},
    )


def blocks_of(shapes: Mapping[str, Any]) -> tuple[int, ...]:
    """The number of blocks in each stage, counted from our paths.

    >>> names = ('stage1/block0/conv1', 'stage2/block0/conv1', 'stage2/block1/conv1')
    >>> blocks_of({f'backbone/{name}/kernel': () for name in names})
    (1, 2)
    """
    counts: list[int] = []
    while found := sum(
        path.startswith(f'backbone/stage{len(counts) + 1}/') and path.endswith('/conv1/kernel')
        for path in shapes
    ):
        counts.append(found)
    return tuple(counts)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses networks that name and shape their tensors as a ResNet does, but compute otherwise.

    Raises:
      ValueError: the config tells of one.
    """
    timm = text(config, 'architecture', '')
    if timm.startswith(('resnetaa', 'resnetblur')):
        raise ValueError(f'{timm} blurs before it leaves pixels out, which resnet here does not')
    for key, ours in (
        ('hidden_act', 'relu'),
        ('downsample_in_first_stage', False),
        ('downsample_in_bottleneck', False),
    ):
        if config.get(key, ours) != ours:
            raise ValueError(f'config.json: {key} is {config[key]!r}; resnet here has {ours!r}')
