"""EfficientNet-Lite0 as timm and geffnet name it, and as the package efficientnet_pytorch does."""

from collections.abc import Mapping
from typing import Any

from tljax.models.efficientnet_lite import STAGES
from tljax.pretrained.porter import BATCHES, Row, Scheme, batch_norm_rows, linear_rows
from tljax.pretrained.porters.config import text

# What weights that were trained in TensorFlow need.
TENSORFLOW = {'padding': 'tf', 'epsilon': 1e-3}


def conv_rows(theirs: str, ours: str, *parts: tuple[str, str, str]) -> tuple[Row, ...]:
    """Convolutions, each with its batch norm: their two names within `theirs`, ours in `ours`."""
    rows: list[Row] = []
    for conv, norm, path in parts:
        rows.append(Row(f'{theirs}{conv}.weight', f'{ours}{path}/kernel', 'conv'))
        rows.extend(batch_norm_rows(f'{theirs}{norm}', f'{ours}{path}_norm'))
    return tuple(rows)


TIMM = (
    *conv_rows('', 'backbone/', ('conv_stem', 'bn1', 'stem')),
    # The first block doesn't expand, so its norms are counted, and its last convolution is named,
    # otherwise than in the blocks after it.
    *conv_rows(
        'blocks.0.0.',
        'backbone/stage1/block0/',
        ('conv_dw', 'bn1', 'depthwise'),
        ('conv_pw', 'bn2', 'project'),
    ),
    *conv_rows(
        'blocks.{s}.{b}.',
        'backbone/stage{s+1}/block{b}/',
        ('conv_pw', 'bn1', 'expand'),
        ('conv_dw', 'bn2', 'depthwise'),
        ('conv_pwl', 'bn3', 'project'),
    ),
    *conv_rows('', 'backbone/', ('conv_head', 'bn2', 'last')),
    *linear_rows('classifier', 'head'),
)


def flat_rows() -> tuple[Row, ...]:
    """Names that count blocks through all stages."""
    rows = [*conv_rows('', 'backbone/', ('_conv_stem', '_bn0', 'stem'))]
    blocks = [(s, b) for s, stage in enumerate(STAGES, 1) for b in range(stage[-1])]
    for n, (s, b) in enumerate(blocks):
        rows += conv_rows(
            f'_blocks.{n}.',
            f'backbone/stage{s}/block{b}/',
            ('_expand_conv', '_bn0', 'expand'),
            ('_depthwise_conv', '_bn1', 'depthwise'),
            ('_project_conv', '_bn2', 'project'),
        )
    rows += conv_rows('', 'backbone/', ('_conv_head', '_bn1', 'last'))
    return (*rows, *linear_rows('_fc', 'head'))


SCHEMES = (
    Scheme('timm', 'efficientnet_lite', TIMM, skipped=(BATCHES,)),
    Scheme(
        'efficientnet_pytorch',
        'efficientnet_lite',
        flat_rows(),
        skipped=(BATCHES,),
        fixed=TENSORFLOW,
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and timm's config.json.

    Weights from TensorFlow have the same names and shapes as those from PyTorch, but need another
    padding and epsilon; only `architecture` in config.json tells. Without it, PyTorch's are taken.
    """
    architecture = text(config, 'architecture', '')
    converted = architecture.startswith('tf_')
    return dict(
        guessed=[] if architecture else ['padding', 'epsilon'],
        **(TENSORFLOW if converted else {'padding': 'torch', 'epsilon': 1e-5}),
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (224, 224, shapes['backbone/stem/kernel'][2])},
    )
