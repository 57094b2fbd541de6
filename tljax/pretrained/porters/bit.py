"""BiT as its authors name it (two ways), and as timm and Hugging Face do."""

from collections.abc import Mapping
from typing import Any

from tljax.models.bit import DEPTHS, GROUPS
from tljax.models.resnet import BLOCKS
from tljax.pretrained.porter import Row, Scheme, norm_rows
from tljax.pretrained.porters.resnet import blocks_of

OURS = 'backbone/stage{s}/block{b}'
OURS_FROM_0 = 'backbone/stage{s+1}/block{b}'
UNIT = 'block{s}/unit{b+1:02}'
CONV = 'standardized_conv2d'


def unit_rows(conv: str) -> tuple[Row, ...]:
    """The convolutions of the first files' units, which call them a, b, c and a/proj."""
    convs = (('a', 'conv1'), ('b', 'conv2'), ('c', 'conv3'), ('a/proj', 'downsample'))
    return (
        Row(f'resnet/root_block/{conv}/kernel', 'backbone/stem/kernel'),
        *(Row(f'resnet/{UNIT}/{a}/{conv}/kernel', f'{OURS}/{c}/kernel') for a, c in convs),
    )


def old_norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """TensorFlow's names of a norm's leaves."""
    return (Row(f'{theirs}/gamma', f'{ours}/scale'), Row(f'{theirs}/beta', f'{ours}/bias'))


def flax_norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """A norm's leaves where they have the shape (1, 1, 1, C)."""
    return tuple(Row(f'{theirs}/{x}', f'{ours}/{x}', 'per_channel') for x in ('scale', 'bias'))


SCHEMES = (
    Scheme(
        name='big_transfer',  # BiT-S, BiT-M: .npz
        model='bit',
        rows=(
            *unit_rows(CONV),
            *unit_rows(CONV + '_{k}'),  # some files number them
            *(
                row
                for c, letter in enumerate('abc', 1)
                for row in old_norm_rows(f'resnet/{UNIT}/{letter}/group_norm', f'{OURS}/norm{c}')
            ),
            *old_norm_rows('resnet/group_norm', 'backbone/norm'),
            Row('resnet/head/conv2d/kernel', 'head/kernel', 'hwio_linear'),
            Row('resnet/head/conv2d/bias', 'head/bias'),
        ),
    ),
    Scheme(
        name='big_vision',
        model='bit',
        rows=(
            Row('root_block/conv_root/kernel', 'backbone/stem/kernel'),
            Row(f'{UNIT}/conv{{c}}/kernel', f'{OURS}/conv{{c}}/kernel'),
            Row(f'{UNIT}/conv_proj/kernel', f'{OURS}/downsample/kernel'),
            *flax_norm_rows(f'{UNIT}/gn{{c}}', f'{OURS}/norm{{c}}'),
            *flax_norm_rows('norm-pre-head', 'backbone/norm'),
            Row('head/kernel', 'head/kernel'),
            Row('head/bias', 'head/bias'),
        ),
        prefixes=('params/', 'opt/target/'),
    ),
    Scheme(
        name='timm',
        model='bit',
        rows=(
            Row('stem.conv.weight', 'backbone/stem/kernel', 'conv'),
            Row('stages.{s}.blocks.{b}.conv{c}.weight', f'{OURS_FROM_0}/conv{{c}}/kernel', 'conv'),
            Row(
                'stages.{s}.blocks.{b}.downsample.conv.weight',
                f'{OURS_FROM_0}/downsample/kernel',
                'conv',
            ),
            *norm_rows('stages.{s}.blocks.{b}.norm{c}', f'{OURS_FROM_0}/norm{{c}}'),
            *norm_rows('norm', 'backbone/norm'),
            Row('head.fc.weight', 'head/kernel', 'conv_linear'),
            Row('head.fc.bias', 'head/bias'),
        ),
    ),
    Scheme(
        name='huggingface',
        model='bit',
        rows=(
            Row('embedder.convolution.weight', 'backbone/stem/kernel', 'conv'),
            Row(
                'encoder.stages.{s}.layers.{b}.conv{c}.weight',
                f'{OURS_FROM_0}/conv{{c}}/kernel',
                'conv',
            ),
            Row(
                'encoder.stages.{s}.layers.{b}.downsample.conv.weight',
                f'{OURS_FROM_0}/downsample/kernel',
                'conv',
            ),
            *norm_rows('encoder.stages.{s}.layers.{b}.norm{c}', f'{OURS_FROM_0}/norm{{c}}'),
            *norm_rows('norm', 'backbone/norm'),
            Row('classifier.1.weight', 'head/kernel', 'linear'),
            Row('classifier.1.bias', 'head/bias'),
        ),
        backbone_prefix='bit.',
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      ValueError: no depth has such stages, or the config says that the network computes otherwise
        than its names tell.
    """
    stages = blocks_of(shapes)
    depths = [depth for depth in DEPTHS if BLOCKS[depth] == stages]
    if not depths:
        raise ValueError(f'no BiT has stages of {stages} blocks')
    check_config(config)
    *_, channels, width = shapes['backbone/stem/kernel']
    return dict(
        depth=depths[0],
        width_factor=width // 64,
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (224, 224, channels)},
    )


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses networks that name and shape their tensors as BiT does, but compute otherwise.

    Raises:
      ValueError: the config tells of one.
    """
    for key, ours in (
        ('hidden_act', 'relu'),
        ('layer_type', 'preactivation'),
        ('global_padding', None),
        ('embedding_dynamic_padding', False),
        ('num_groups', GROUPS),
        ('output_stride', 32),
    ):
        if config.get(key, ours) != ours:
            raise ValueError(f'config.json: {key} is {config[key]!r}; bit here has {ours!r}')
