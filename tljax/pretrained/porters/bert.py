"""BERT as Hugging Face transformers names it, and as its first files did; DistilBERT."""

from collections.abc import Mapping
from typing import Any

from tljax.errors import UserError
from tljax.models.transformer import ACTIVATIONS
from tljax.pretrained.porter import Row, Scheme, linear_rows, norm_rows
from tljax.pretrained.porters.config import number, table, text, whole

BLOCK = 'encoder.layer.{n}'
OURS = 'backbone/block{n}'
# Their names of activations that ours have under another.
SYNONYMS = {
    'gelu_new': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu_python': 'gelu',
}


def old_norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """TensorFlow's names of a layer normalisation's leaves, which the oldest files kept."""
    return (Row(f'{theirs}.gamma', f'{ours}/scale'), Row(f'{theirs}.beta', f'{ours}/bias'))


NORMS = (
    ('embeddings.LayerNorm', 'backbone/norm'),
    (f'{BLOCK}.attention.output.LayerNorm', f'{OURS}/norm1'),
    (f'{BLOCK}.output.LayerNorm', f'{OURS}/norm2'),
)
BODY = (
    Row('embeddings.word_embeddings.weight', 'backbone/token/embedding'),
    Row('embeddings.position_embeddings.weight', 'backbone/position/embedding'),
    Row('embeddings.token_type_embeddings.weight', 'backbone/type/embedding'),
    *linear_rows(f'{BLOCK}.attention.self.query', f'{OURS}/attention/query'),
    *linear_rows(f'{BLOCK}.attention.self.key', f'{OURS}/attention/key'),
    *linear_rows(f'{BLOCK}.attention.self.value', f'{OURS}/attention/value'),
    *linear_rows(f'{BLOCK}.attention.output.dense', f'{OURS}/attention/out'),
    *linear_rows(f'{BLOCK}.intermediate.dense', f'{OURS}/mlp/up'),
    *linear_rows(f'{BLOCK}.output.dense', f'{OURS}/mlp/down'),
)
POOLER = linear_rows('pooler.dense', 'backbone/pooler')
HEAD = linear_rows('classifier', 'head')
SKIPPED = (
    (r'embeddings\.(position|token_type)_ids', 'counts 0, 1, 2, ...: no weight'),
    (r'cls\.predictions\..*', 'guesses masked words, which nothing here asks for'),
    (r'cls\.seq_relationship\..*', 'guesses whether one sentence follows another'),
)
NEW_NORMS = tuple(row for names in NORMS for row in norm_rows(*names))
OLD_NORMS = tuple(row for names in NORMS for row in old_norm_rows(*names))
DISTILLED = 'transformer.layer.{n}'
DISTILLED_ROWS = (
    Row('embeddings.word_embeddings.weight', 'backbone/token/embedding'),
    Row('embeddings.position_embeddings.weight', 'backbone/position/embedding'),
    *norm_rows('embeddings.LayerNorm', 'backbone/norm'),
    *linear_rows(f'{DISTILLED}.attention.q_lin', f'{OURS}/attention/query'),
    *linear_rows(f'{DISTILLED}.attention.k_lin', f'{OURS}/attention/key'),
    *linear_rows(f'{DISTILLED}.attention.v_lin', f'{OURS}/attention/value'),
    *linear_rows(f'{DISTILLED}.attention.out_lin', f'{OURS}/attention/out'),
    *norm_rows(f'{DISTILLED}.sa_layer_norm', f'{OURS}/norm1'),
    *linear_rows(f'{DISTILLED}.ffn.lin1', f'{OURS}/mlp/up'),
    *linear_rows(f'{DISTILLED}.ffn.lin2', f'{OURS}/mlp/down'),
    *norm_rows(f'{DISTILLED}.output_layer_norm', f'{OURS}/norm2'),
)
DISTILLED_SKIPPED = (
    (r'embeddings\.position_ids', 'counts 0, 1, 2, ...: no weight'),
    (r'vocab_(transform|layer_norm|projector)\..*', 'guesses masked words'),
)
COMMON: dict[str, Any] = dict(model='bert', backbone_prefix='bert.')

# The third fits only where `arguments` finds that the texts' vectors are pooled otherwise, so that
# a pooler in the file would be a leaf too many for the first.
SCHEMES = (
    Scheme('huggingface', rows=(*BODY, *NEW_NORMS, *POOLER, *HEAD), skipped=SKIPPED, **COMMON),
    Scheme('huggingface_2018', rows=(*BODY, *OLD_NORMS, *POOLER, *HEAD), skipped=SKIPPED, **COMMON),
    Scheme(
        'sentence_transformers',
        rows=(*BODY, *NEW_NORMS, *HEAD),
        skipped=(*SKIPPED, (r'pooler\.dense\..*', 'texts are pooled without it')),
        **COMMON,
    ),
    Scheme(
        'distilbert',
        model='bert',
        rows=(*DISTILLED_ROWS, *HEAD),
        skipped=DISTILLED_SKIPPED,
        backbone_prefix='distilbert.',
    ),
    Scheme(
        'distilbert_classifier',
        model='bert',
        rows=DISTILLED_ROWS,
        skipped=(
            *DISTILLED_SKIPPED,
            (r'(pre_)?classifier\..*', 'of two layers, where bert here has one for a head'),
        ),
        backbone_prefix='distilbert.',
    ),
)


def arguments(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, from the shapes of our leaves and the file's config.json.

    Raises:
      UserError: the config asks for what this model doesn't do, or there is none and the sizes
        are RoBERTa's.
    """
    check_positions(shapes, config)
    vocabulary, width = shapes['backbone/token/embedding']
    positions, _ = shapes['backbone/position/embedding']
    if config.get('position_embedding_type', 'absolute') != 'absolute':
        raise UserError(
            f'config.json: position_embedding_type is {config["position_embedding_type"]!r}; bert '
            "here has 'absolute' ones only."
        )
    pool, pool_is_told = pool_of(shapes, config)
    heads = whole(config, 'num_attention_heads', whole(config, 'n_heads', None))
    activation = text(config, 'hidden_act', text(config, 'activation', ''))
    told = {
        'heads': heads,
        'activation': activation,
        'epsilon': 'layer_norm_eps' in config,
        'pool': pool_is_told,
    }
    return dict(
        width=width,
        layers=sum(path.endswith('attention/query/kernel') for path in shapes),
        heads=heads or heads_of(width),
        hidden=shapes['backbone/block0/mlp/up/kernel'][1],
        vocabulary=vocabulary,
        positions=positions,
        types=shapes.get('backbone/type/embedding', (0,))[0],
        activation=activation_of(activation or 'gelu'),
        epsilon=number(config, 'layer_norm_eps', 1e-12),
        pool=pool,
        outputs=shapes.get('head/bias', (2,))[0],
        example={'tokens': (min(128, positions),)},
        guessed=[key for key, is_told in told.items() if not is_told],
    )


def check_positions(shapes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuses RoBERTa and its descendants, whose tensors are named and shaped as BERT's are.

    Their first two positions are never a token's: positions are counted from behind the index of
    padding, 1. So there are two more than a power of two, and one type instead of two.

    Raises:
      UserError: no config says what it is, and its sizes are theirs.
    """
    positions, _ = shapes['backbone/position/embedding']
    types, _ = shapes.get('backbone/type/embedding', (0, 0))
    length = positions - 2
    theirs = types == 1 and length > 1 and length & (length - 1) == 0
    if theirs and config.get('model_type') is None:
        raise UserError(
            f'it has {positions} positions and one type, as RoBERTa, XLM-R and CamemBERT have: '
            'their positions start behind the padding index, which bert here does not do. If it '
            "is a BERT after all, put its config.json, with 'model_type', beside it."
        )


def heads_of(width: int) -> int:
    """The number of heads that usually goes with a width.

    Heads leave no trace in the weights. Google's models have heads of 64 channels (Devlin et al.
    2019, section 3; Turc et al. 2019, table 1), MiniLM's of width 384 of 32 (Wang et al. 2020).

    >>> heads_of(768), heads_of(384), heads_of(32)
    (12, 12, 1)
    """
    if width == 384:
        return 12
    return 1 if width % 64 else width // 64


def activation_of(name: str) -> str:
    """Our name of an activation.

    Raises:
      UserError: there is none.

    >>> activation_of('gelu_new')
    'gelu_tanh'
    """
    ours = SYNONYMS.get(name, name)
    if ours not in ACTIVATIONS:
        raise UserError(
            f'config.json: no activation {name!r} here, only {sorted({*ACTIVATIONS, *SYNONYMS})}.'
        )
    return ours


def pool_of(shapes: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, bool]:
    """How a text becomes one vector, and whether the files tell so.

    Args:
      shapes: of our leaves; a pooler among them is BERT's own way.
      config: `pooling`, if it is there, is what 1_Pooling/config.json holds.

    Raises:
      UserError: it asks for a pooling that bert here doesn't have.

    >>> pool_of({}, {'pooling': {'pooling_mode_mean_tokens': True}})
    ('mean', True)
    """
    asked = [
        key
        for key, is_on in table(config, 'pooling').items()
        if key.startswith('pooling_mode') and is_on
    ]
    if len(asked) > 1 or not POOLINGS.keys() >= set(asked):
        raise UserError(
            f'1_Pooling/config.json asks for {" and ".join(asked)}; bert here does one of '
            f'{sorted(POOLINGS)}.'
        )
    if asked:
        return POOLINGS[asked[0]], True
    return ('cls', True) if 'backbone/pooler/kernel' in shapes else ('first', False)


# Sentence embeddings' 'cls' is the bare first token, without BERT's linear layer.
POOLINGS = {'pooling_mode_cls_token': 'first', 'pooling_mode_mean_tokens': 'mean'}
