"""ViT as timm, torchvision, Hugging Face transformers and its authors (two ways) name it."""

import math
from collections.abc import Mapping
from typing import Any

from tljax.pretrained.porter import Row, Scheme, Shape, linear_rows, norm_rows
from tljax.pretrained.porters.bert import activation_of
from tljax.pretrained.porters.config import number, sides, table, text, whole

OURS = 'backbone/block{n}'
PARTS = ('query', 'key', 'value')
QKV = tuple(f'{OURS}/attention/{part}' for part in PARTS)
PATCH = 'backbone/patch'
REPRESENTATION = 'backbone/representation'
# Heads leave no trace in most files. They are 64 wide but for these (Zhai et al. 2022, table 2).
HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1792: 16}
POOLS = {'token': 'cls', 'avg': 'mean'}


def conv_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """PyTorch's names of a convolution's leaves."""
    return (
        Row(f'{theirs}.weight', f'{ours}/kernel', 'conv'),
        Row(f'{theirs}.bias', f'{ours}/bias'),
    )


def fused_rows(weight: str, bias: str) -> tuple[Row, ...]:
    """Queries, keys and values in one linear layer."""
    return (
        Row(weight, tuple(f'{path}/kernel' for path in QKV), 'split_linear'),
        Row(bias, tuple(f'{path}/bias' for path in QKV), 'split_vector'),
    )


def timm_rows() -> tuple[Row, ...]:
    block = 'blocks.{n}'
    return (
        Row('cls_token', 'backbone/class_token'),
        Row('pos_embed', 'backbone/position'),
        *conv_rows('patch_embed.proj', PATCH),
        *norm_rows(f'{block}.norm1', f'{OURS}/norm1'),
        *fused_rows(f'{block}.attn.qkv.weight', f'{block}.attn.qkv.bias'),
        *linear_rows(f'{block}.attn.proj', f'{OURS}/attention/out'),
        *norm_rows(f'{block}.norm2', f'{OURS}/norm2'),
        *linear_rows(f'{block}.mlp.fc1', f'{OURS}/mlp/up'),
        *linear_rows(f'{block}.mlp.fc2', f'{OURS}/mlp/down'),
        *linear_rows('head', 'head'),
    )


def torchvision_rows() -> tuple[Row, ...]:
    block = 'encoder.layers.encoder_layer_{n}'
    attention = f'{block}.self_attention'
    return (
        Row('class_token', 'backbone/class_token'),
        Row('encoder.pos_embedding', 'backbone/position'),
        *conv_rows('conv_proj', PATCH),
        *norm_rows(f'{block}.ln_1', f'{OURS}/norm1'),
        *fused_rows(f'{attention}.in_proj_weight', f'{attention}.in_proj_bias'),
        *linear_rows(f'{attention}.out_proj', f'{OURS}/attention/out'),
        *norm_rows(f'{block}.ln_2', f'{OURS}/norm2'),
        *linear_rows(f'{block}.mlp.0', f'{OURS}/mlp/up'),
        *linear_rows(f'{block}.mlp.3', f'{OURS}/mlp/down'),
        # As the published files still have them.
        *linear_rows(f'{block}.mlp.linear_1', f'{OURS}/mlp/up'),
        *linear_rows(f'{block}.mlp.linear_2', f'{OURS}/mlp/down'),
        *norm_rows('encoder.ln', 'backbone/norm'),
        *linear_rows('heads.pre_logits', REPRESENTATION),
        *linear_rows('heads.head', 'head'),
    )


def huggingface_rows(block: str, parts: tuple[str, ...]) -> tuple[Row, ...]:
    """The names of files, or those that transformers 5 gives the same tensors in memory.

    Args:
      block: name of one.
      parts: queries, keys, values, output, and the two linear layers.
    """
    ours = (*QKV, f'{OURS}/attention/out', f'{OURS}/mlp/up', f'{OURS}/mlp/down')
    return (
        Row('embeddings.cls_token', 'backbone/class_token'),
        Row('embeddings.position_embeddings', 'backbone/position'),
        *conv_rows('embeddings.patch_embeddings.projection', PATCH),
        *norm_rows(f'{block}.layernorm_before', f'{OURS}/norm1'),
        *(
            row
            for part, path in zip(parts, ours, strict=True)
            for row in linear_rows(f'{block}.{part}', path)
        ),
        *norm_rows(f'{block}.layernorm_after', f'{OURS}/norm2'),
        *norm_rows('layernorm', 'backbone/norm'),
        *linear_rows('classifier', 'head'),
    )


def flax_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """A layer that flax wrote as we do."""
    return tuple(Row(f'{theirs}/{name}', f'{ours}/{name}') for name in ('kernel', 'bias'))


def flax_norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    return tuple(Row(f'{theirs}/{name}', f'{ours}/{name}') for name in ('scale', 'bias'))


def authors_rows(numbers: tuple[int, int, int], positions: tuple[str, ...]) -> tuple[Row, ...]:
    """The names of the authors' files.

    Args:
      numbers: of a block's attention, its second norm, and its two linear layers.
      positions: names of the position embeddings; the first is written.
    """
    block = 'Transformer/encoderblock_{n}'
    attention = f'{block}/MultiHeadDotProductAttention_{numbers[0]}'
    mlp = f'{block}/MlpBlock_{numbers[2]}'
    return (
        Row('cls', 'backbone/class_token'),
        *(Row(name, 'backbone/position') for name in positions),
        *flax_rows('embedding', PATCH),
        *flax_norm_rows(f'{block}/LayerNorm_0', f'{OURS}/norm1'),
        *(
            Row(f'{attention}/{part}/{leaf}', f'{OURS}/attention/{part}/{leaf}', transform)
            for part in PARTS
            for leaf, transform in (('kernel', 'heads_in'), ('bias', 'heads_bias'))
        ),
        Row(f'{attention}/out/kernel', f'{OURS}/attention/out/kernel', 'heads_out'),
        Row(f'{attention}/out/bias', f'{OURS}/attention/out/bias'),
        *flax_norm_rows(f'{block}/LayerNorm_{numbers[1]}', f'{OURS}/norm2'),
        *flax_rows(f'{mlp}/Dense_0', f'{OURS}/mlp/up'),
        *flax_rows(f'{mlp}/Dense_1', f'{OURS}/mlp/down'),
        *flax_norm_rows('Transformer/encoder_norm', 'backbone/norm'),
        *flax_rows('pre_logits', REPRESENTATION),
        *flax_rows('head', 'head'),
    )


def heads_told(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The number of heads, from the authors' files, whose queries are (width, heads, channels)."""
    queries = (shape for name, shape in shapes.items() if name.endswith('/query/kernel'))
    shape = next(queries, ())
    return {'heads': shape[1]} if len(shape) == 3 else {}


def learnt(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Positions are learnt in all files but big_vision's: one without any has lost them."""
    endings = ('pos_embed', 'pos_embedding', 'position_embeddings')
    return {} if any(name.endswith(endings) for name in shapes) else {'position': 'learnt'}


def told_by_timm(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The activation too, if there is a class token: some of the SigLIP encoders in timm, which
    have none, approximate it, and nothing in the file tells which.
    """
    has_token = any(name.endswith('cls_token') for name in shapes)
    return {**learnt(shapes), **({'activation': 'gelu'} if has_token else {})}


def told_by_authors(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    return {**learnt(shapes), **heads_told(shapes)}


POSITION = 'pos_embedding'
PUBLISHED = ('attention.attention.query', 'attention.attention.key', 'attention.attention.value')
TIMM: dict[str, Any] = dict(model='vit', tell=told_by_timm)
# flax's gelu is the approximation unless told otherwise.
AUTHORS: dict[str, Any] = dict(
    model='vit',
    prefixes=('params/', 'opt/target/'),
    skipped=((r'(opt|extra|chrono)/(?!target/).*', 'is the state of its training'),),
    fixed={'activation': 'gelu_tanh', 'epsilon': 1e-6},
)
HUGGING_FACE: dict[str, Any] = dict(
    model='vit',
    skipped=(
        (r'pooler\.dense\..*', 'stands behind the class token only in pretraining'),
        (r'embeddings\.mask_token', 'hides patches in pretraining'),
        (r'decoder\..*', 'draws hidden patches in pretraining'),
    ),
    backbone_prefix='vit.',
    tell=learnt,
)

SCHEMES = (
    Scheme(
        'timm',
        rows=(*timm_rows(), *norm_rows('norm', 'backbone/norm')),
        fixed={'epsilon': 1e-6},
        **TIMM,
    ),
    Scheme(
        'timm_fc_norm',  # the norm stands behind the mean
        rows=(*timm_rows(), *norm_rows('fc_norm', 'backbone/norm')),
        fixed={'epsilon': 1e-6, 'pool': 'mean_norm'},
        **TIMM,
    ),
    Scheme(
        'torchvision',
        'vit',
        torchvision_rows(),
        fixed={'activation': 'gelu', 'epsilon': 1e-6, 'pool': 'cls'},
        tell=learnt,
    ),
    Scheme(
        'huggingface',
        rows=huggingface_rows(
            'encoder.layer.{n}',
            (*PUBLISHED, 'attention.output.dense', 'intermediate.dense', 'output.dense'),
        ),
        **HUGGING_FACE,
    ),
    Scheme(
        'huggingface_5',
        rows=huggingface_rows(
            'layers.{n}',
            (*(f'attention.{x}_proj' for x in 'qkvo'), 'mlp.fc1', 'mlp.fc2'),
        ),
        **HUGGING_FACE,
    ),
    Scheme(
        'vision_transformer',  # 2020, and "How to train your ViT"
        rows=authors_rows((1, 2, 3), (f'Transformer/posembed_input/{POSITION}',)),
        tell=told_by_authors,
        **AUTHORS,
    ),
    Scheme(
        'big_vision',
        rows=authors_rows((0, 1, 0), (POSITION, f'Transformer/{POSITION}')),
        tell=heads_told,
        **AUTHORS,
    ),
)


def arguments(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      UserError: the config asks for an activation that there is not.
      ValueError: or for something else that this model doesn't do.
    """
    patch, _, channels, width = shapes['backbone/patch/kernel']
    representation = shapes.get('backbone/representation/kernel', (0, 0))[1]
    tokens = 'backbone/class_token' in shapes
    position, grid = positions_of(shapes, config, patch)
    heads = heads_in(config)
    told_pool = config.get('global_pool')
    if told_pool not in (None, '', *POOLS):
        raise ValueError(f'config.json: global_pool is {told_pool!r}; vit here has {list(POOLS)}')
    timms = text(config, 'architecture', '')
    told = {
        'heads': heads,
        'pool': told_pool or not tokens or 'hidden_act' in config,
        'activation': 'hidden_act' in config or (timms and 'siglip' not in timms),
        'epsilon': 'layer_norm_eps' in config,
    }
    return dict(
        width=width,
        layers=sum(path.endswith('attention/query/kernel') for path in shapes),
        heads=heads or HEADS.get(width, max(width // 64, 1)),
        hidden=shapes['backbone/block0/mlp/up/kernel'][1],
        patch=patch,
        pool=POOLS.get(told_pool or '', 'cls' if tokens else 'mean'),
        class_token=tokens,
        position=position,
        representation=representation,
        activation=activation_of(text(config, 'hidden_act', 'gelu')),
        epsilon=number(config, 'layer_norm_eps', 1e-12),
        outputs=shapes.get('head/bias', (1000,))[0],
        example={'image': (grid[0] * patch, grid[1] * patch, channels)},
        guessed=[key for key, is_told in told.items() if not is_told],
    )


def heads_in(config: Mapping[str, Any]) -> int | None:
    """The number of heads that transformers' or timm's config tells."""
    timms = whole(table(config, 'model_args'), 'num_heads', None)
    return whole(config, 'num_attention_heads', timms)


def positions_of(
    shapes: Mapping[str, Shape], config: Mapping[str, Any], patch: int
) -> tuple[str, tuple[int, int]]:
    """The kind of positions, and how many patches a picture has down and across.

    Positions tell how many patches there are, but not in how many rows: if the config doesn't,
    they are a square, or what comes nearest to one. Rows matter only where positions are resized.

    >>> shapes = {'backbone/position': (1, 196, 8), 'backbone/class_token': (1, 1, 8)}
    >>> positions_of(shapes, {}, 16)
    ('learnt_patches', (14, 14))
    >>> positions_of({**shapes, 'backbone/position': (1, 9, 8)}, {'image_size': [32, 64]}, 16)
    ('learnt', (2, 4))
    """
    height, width = sides(config, 'image_size')
    told = (height // patch, width // patch)
    if 'backbone/position' not in shapes:
        return 'sincos2d', told if all(told) else (224 // patch, 224 // patch)
    count = shapes['backbone/position'][1]
    # The class token has a position, as in the paper, unless the other count fits better.
    counts = {'learnt': count - ('backbone/class_token' in shapes), 'learnt_patches': count}
    grids = {kind: (told if math.prod(told) == n else near(n)) for kind, n in counts.items()}
    best = [kind for kind, grid in grids.items() if grid == told]
    best += [kind for kind, (rows, columns) in grids.items() if rows == columns]
    kind = (best or ['learnt'])[0]
    return kind, grids[kind]


def near(count: int) -> tuple[int, int]:
    """The rows and columns of so many patches that come nearest to a square.

    >>> near(196), near(8), near(7)
    ((14, 14), (2, 4), (1, 7))
    """
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows, count // rows
