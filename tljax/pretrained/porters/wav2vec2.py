"""wav2vec 2.0 as Hugging Face transformers names it, from before PyTorch 2 and since."""

from collections.abc import Mapping
from typing import Any

from tljax.errors import UserError
from tljax.models.transformer import ACTIVATIONS
from tljax.pretrained.porter import Row, Scheme, linear_rows, norm_rows
from tljax.pretrained.porters.config import flag, is_whole, number, text, whole, wrong

CONV = 'feature_extractor.conv_layers.{n}'
OUR_CONV = 'backbone/extractor/layer{n}'
BLOCK = 'encoder.layers.{n}'
OURS = 'backbone/block{n}'
BODY = (
    Row(f'{CONV}.conv.weight', f'{OUR_CONV}/conv/kernel', 'conv1d'),
    Row(f'{CONV}.conv.bias', f'{OUR_CONV}/conv/bias'),
    *norm_rows(f'{CONV}.layer_norm', f'{OUR_CONV}/norm'),
    *norm_rows('feature_projection.layer_norm', 'backbone/projection/norm'),
    *linear_rows('feature_projection.projection', 'backbone/projection/linear'),
    Row('encoder.pos_conv_embed.conv.bias', 'backbone/position/bias'),
    *norm_rows('encoder.layer_norm', 'backbone/norm'),
    *linear_rows(f'{BLOCK}.attention.q_proj', f'{OURS}/attention/query'),
    *linear_rows(f'{BLOCK}.attention.k_proj', f'{OURS}/attention/key'),
    *linear_rows(f'{BLOCK}.attention.v_proj', f'{OURS}/attention/value'),
    *linear_rows(f'{BLOCK}.attention.out_proj', f'{OURS}/attention/out'),
    *norm_rows(f'{BLOCK}.layer_norm', f'{OURS}/norm1'),
    *linear_rows(f'{BLOCK}.feed_forward.intermediate_dense', f'{OURS}/mlp/up'),
    *linear_rows(f'{BLOCK}.feed_forward.output_dense', f'{OURS}/mlp/down'),
    *norm_rows(f'{BLOCK}.final_layer_norm', f'{OURS}/norm2'),
)


def weight_norm_rows(magnitude: str, direction: str) -> tuple[Row, ...]:
    """What the two halves of the kernel that tells positions are called."""
    theirs, ours = 'encoder.pos_conv_embed.conv', 'backbone/position'
    return (
        Row(f'{theirs}.{magnitude}', f'{ours}/magnitude', 'conv1d'),
        Row(f'{theirs}.{direction}', f'{ours}/direction', 'conv1d'),
    )


# Of torch.nn.utils.parametrizations.weight_norm, and of torch.nn.utils.weight_norm before it.
NEW = weight_norm_rows('parametrizations.weight.original0', 'parametrizations.weight.original1')
OLD = weight_norm_rows('weight_g', 'weight_v')
HEAD = linear_rows('lm_head', 'head')
SKIPPED = (
    (r'masked_spec_embed', 'stands for frames that training hides, which nothing here does'),
    (r'quantizer\..*', "makes the targets of pretraining's task, which nothing here has"),
    (r'project_(q|hid)\..*', "compares with the targets of pretraining's task"),
    (r'(projector|classifier)\..*', 'a head of its own kind: only that of CTC is read'),
)
COMMON: dict[str, Any] = dict(model='wav2vec2', skipped=SKIPPED, backbone_prefix='wav2vec2.')

# Files published before PyTorch 2, and those that transformers saves with it.
SCHEMES = (
    Scheme('huggingface', rows=(*BODY, *OLD, *HEAD), **COMMON),
    Scheme('huggingface_torch2', rows=(*BODY, *NEW, *HEAD), **COMMON),
)

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      UserError: the config asks for what this model doesn't do, or there is none and the
        convolutions are not wav2vec 2.0's own, so that nothing tells their strides.
    """
    activation = activation_of(config)
    convs = [
        shapes[f'backbone/extractor/layer{n}/conv/kernel']
        for n in range(sum(path.endswith('conv/kernel') for path in shapes))
    ]
    kernels = tuple(kernel for kernel, _, _ in convs)
    width = shapes['backbone/norm/scale'][0]
    taps, group, _ = shapes['backbone/position/direction']
    conv_norm, is_conv_norm_told = conv_norm_of(shapes, config)
    heads = whole(config, 'num_attention_heads', None)
    is_stable = flag(config, 'do_stable_layer_norm', None)
    told = {
        'heads': heads,
        'conv_strides': 'conv_stride' in config,
        'conv_norm': is_conv_norm_told,
        'norm': is_stable is not None,
        'epsilon': 'layer_norm_eps' in config,
        'activation': 'hidden_act' in config,
    }
    # Of the published models, those with layer norms between convolutions are the stable ones.
    is_pre = conv_norm == 'layer' if is_stable is None else is_stable
    return dict(
        width=width,
        layers=sum(path.endswith('attention/query/kernel') for path in shapes),
        heads=heads or (1 if width % 64 else width // 64),
        hidden=shapes['backbone/block0/mlp/up/kernel'][1],
        conv_widths=tuple(outputs for _, _, outputs in convs),
        conv_kernels=kernels,
        conv_strides=strides_of(kernels, config),
        conv_bias='backbone/extractor/layer0/conv/bias' in shapes,
        conv_norm=conv_norm,
        norm='pre' if is_pre else 'post',
        position_kernel=taps,
        position_groups=width // group,
        epsilon=number(config, 'layer_norm_eps', 1e-5),
        activation=activation,
        outputs=shapes.get('head/bias', (32,))[0],
        example={'audio': (16000,)},
        guessed=[key for key, is_told in told.items() if not is_told],
    )


def conv_norm_of(shapes: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, bool]:
    """How the convolutions that make frames are normalised, and whether the files tell so.

    >>> conv_norm_of({'backbone/extractor/layer1/norm/scale': (512,)}, {})
    ('layer', True)
    """
    if 'backbone/extractor/layer1/conv/kernel' in shapes or 'feat_extract_norm' not in config:
        later = 'backbone/extractor/layer1/norm/scale' in shapes
        is_told = 'backbone/extractor/layer1/conv/kernel' in shapes or later
        return 'layer' if later else 'group', is_told
    return text(config, 'feat_extract_norm', ''), True


def strides_of(kernels: tuple[int, ...], config: Mapping[str, Any]) -> tuple[int, ...]:
    """How far apart what each convolution sees lies.

    Raises:
      UserError: no config tells, and the convolutions are not wav2vec 2.0's own.

    >>> strides_of((10, 3, 3, 3, 3, 2, 2), {})
    (5, 2, 2, 2, 2, 2, 2)
    """
    if 'conv_stride' in config:
        strides = config['conv_stride']
        if not isinstance(strides, list | tuple) or not all(map(is_whole, strides)):
            raise wrong(config, 'conv_stride', 'a list of positive whole numbers')
        return tuple(strides)
    if kernels != KERNELS:
        raise UserError(
            f'the strides of convolutions with kernels {kernels} are not in the file. Put the '
            "model's config.json beside it."
        )
    return STRIDES


def activation_of(config: Mapping[str, Any]) -> str:
    """Our name of the activation, the same one everywhere.

    Raises:
      UserError: there is none, or the convolutions have another than the blocks.

    >>> activation_of({'hidden_act': 'gelu', 'feat_extract_activation': 'gelu'})
    'gelu'
    """
    asked = text(config, 'hidden_act', 'gelu')
    other = text(config, 'feat_extract_activation', asked)
    if other != asked:
        raise UserError(
            f'config.json: feat_extract_activation is {other!r} and hidden_act {asked!r}; '
            'wav2vec2 here has one for both.'
        )
    ours = {'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh'}.get(asked, asked)
    if ours not in ACTIVATIONS:
        raise UserError(f'config.json: no activation {asked!r} here, only {sorted(ACTIVATIONS)}.')
    return ours
