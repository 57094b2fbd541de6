"""GPT-2 as Hugging Face transformers names it."""

from collections.abc import Mapping
from typing import Any

from tljax.errors import UserError
from tljax.pretrained.porter import Row, Scheme, norm_rows
from tljax.pretrained.porters.bert import activation_of, heads_of
from tljax.pretrained.porters.config import number, text, whole

BLOCK = 'h.{n}'
OURS = 'backbone/block{n}'
PARTS = ('query', 'key', 'value')


def column_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """Their Conv1D is a linear layer that holds its kernel as ours do: (inputs, outputs)."""
    return (Row(f'{theirs}.weight', f'{ours}/kernel'), Row(f'{theirs}.bias', f'{ours}/bias'))


ROWS = (
    Row('wte.weight', 'backbone/token/embedding'),
    Row('wpe.weight', 'backbone/position/embedding'),
    *norm_rows(f'{BLOCK}.ln_1', f'{OURS}/norm1'),
    Row(
        f'{BLOCK}.attn.c_attn.weight',
        tuple(f'{OURS}/attention/{part}/kernel' for part in PARTS),
        'split_columns',
    ),
    Row(
        f'{BLOCK}.attn.c_attn.bias',
        tuple(f'{OURS}/attention/{part}/bias' for part in PARTS),
        'split_vector',
    ),
    *column_rows(f'{BLOCK}.attn.c_proj', f'{OURS}/attention/out'),
    *norm_rows(f'{BLOCK}.ln_2', f'{OURS}/norm2'),
    *column_rows(f'{BLOCK}.mlp.c_fc', f'{OURS}/mlp/up'),
    *column_rows(f'{BLOCK}.mlp.c_proj', f'{OURS}/mlp/down'),
    *norm_rows('ln_f', 'backbone/norm'),
)
MASKS = (r'h\.\d+\.attn\.(bias|masked_bias)', 'the causal mask, which is made at the call')
COMMON: dict[str, Any] = dict(model='gpt2', backbone_prefix='transformer.')

# The first fits a file with `lm_head` only where `arguments` finds that it is not tied: otherwise
# the model has no such leaf, and the second fits.
SCHEMES = (
    Scheme(
        'huggingface',
        rows=(*ROWS, Row('lm_head.weight', 'head/kernel', 'linear')),
        skipped=(MASKS,),
        **COMMON,
    ),
    Scheme(
        'huggingface_tied',
        rows=ROWS,
        skipped=(MASKS, (r'lm_head\.weight', 'the token embedding once more, to which it is tied')),
        **COMMON,
    ),
    Scheme(
        'huggingface_classifier',
        rows=(*ROWS, Row('score.weight', 'head/kernel', 'linear')),
        skipped=(MASKS,),
        **COMMON,
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      UserError: the config asks for what this model doesn't do.
    """
    for key, usual in UNCHANGED.items():
        if config.get(key, usual) != usual:
            raise UserError(f'config.json: {key} is {config[key]!r}; gpt2 here has {usual!r} only.')
    vocabulary, width = shapes['backbone/token/embedding']
    positions, _ = shapes['backbone/position/embedding']
    hidden = shapes['backbone/block0/mlp/up/kernel'][1]
    outputs = shapes['head/kernel'][1] if 'head/kernel' in shapes else vocabulary
    words = outputs == vocabulary
    # Without a config a head of its own is right whether or not it equals the embedding.
    tied = config.get('tie_word_embeddings', True) if config else 'head/kernel' not in shapes
    told = {
        'heads': 'n_head' in config,
        'activation': 'activation_function' in config,
        'epsilon': 'layer_norm_epsilon' in config,
        'tied': config,
        'pool': False,
    }
    return dict(
        width=width,
        layers=sum(path.endswith('attention/query/kernel') for path in shapes),
        heads=whole(config, 'n_head', heads_of(width)),
        hidden=0 if hidden == 4 * width else hidden,  # as recipes write it
        vocabulary=vocabulary,
        positions=positions,
        activation=activation_of(text(config, 'activation_function', 'gelu_new')),
        epsilon=number(config, 'layer_norm_epsilon', 1e-5),
        tied=words and tied,
        head_bias='head/bias' in shapes or 'head/kernel' not in shapes,
        pool='none' if words else 'last',
        outputs=outputs,
        example={'tokens': (min(128, positions),)},
        guessed=[key for key, is_told in told.items() if not is_told],
    )


# Switches of their config that change the function, as every published GPT-2 has them.
UNCHANGED = {
    'scale_attn_weights': True,
    'scale_attn_by_inverse_layer_idx': False,
    'add_cross_attention': False,
}
