"""GPT-2 against Hugging Face transformers: next words, tied or not, and texts classified."""

import pytest
from parity_support import Case, check

from tljax import models
from tljax.pretrained.attempt import attempts_of

ARGUMENTS = dict(width=32, layers=3, heads=4, vocabulary=50, positions=20)
EXAMPLE = {'tokens': (12,), 'mask': (12,)}
THEIRS = dict(
    n_embd=32,
    n_layer=3,
    n_head=4,
    vocab_size=50,
    n_positions=20,
    bos_token_id=49,
    eos_token_id=49,
    num_labels=5,
    attn_implementation='eager',
)
UNTIED = dict(tied=False, head_bias=False)
CASES = {
    name: Case(name, 'gpt2', {**ARGUMENTS, **changes}, EXAMPLE, outputs, scheme)
    for name, scheme, outputs, changes in (
        ('gpt2', 'huggingface_tied', 50, {}),
        ('gpt2_untied', 'huggingface', 50, UNTIED),
        ('gpt2_gelu', 'huggingface_tied', 50, dict(activation='gelu', hidden=40, epsilon=1e-2)),
        (
            'gpt2_classifier',
            'huggingface_classifier',
            5,
            dict(**UNTIED, pool='last', vocabulary=51),
        ),
    )
}


@pytest.fixture(scope='module')
def transformers(torchvision):
    return pytest.importorskip('transformers')


def call(module, batch):
    return module(batch['tokens'], attention_mask=batch['mask']).logits


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('gpt2', {}),
        ('gpt2_untied', dict(tie_word_embeddings=False)),
        ('gpt2_gelu', dict(activation_function='gelu', n_inner=40, layer_norm_epsilon=1e-2)),
    ],
)
def test_same_next_words(name, changes, transformers):
    config = transformers.GPT2Config(**THEIRS, **changes)
    check(CASES[name], transformers.GPT2LMHeadModel(config).eval(), call)


def test_same_classes(transformers):
    # It looks for the last token that is not this one, not at the mask.
    padding = 50
    config = transformers.GPT2Config(**{**THEIRS, 'vocab_size': 51}, pad_token_id=padding)
    original = transformers.GPT2ForSequenceClassification(config).eval()

    def padded(module, batch):
        tokens = batch['tokens'].where(batch['mask'] > 0, padding)
        return module(tokens, attention_mask=batch['mask']).logits

    check(CASES['gpt2_classifier'], original, padded)


@pytest.mark.parametrize(
    ('kind', 'changes', 'scheme', 'arguments', 'outputs'),
    [
        ('GPT2Model', {}, 'huggingface', {}, 50257),
        ('GPT2LMHeadModel', {}, 'huggingface_tied', {}, 50257),
        ('GPT2LMHeadModel', dict(tie_word_embeddings=False), 'huggingface', UNTIED, 50257),
        (
            'GPT2ForSequenceClassification',
            dict(num_labels=3),
            'huggingface_classifier',
            dict(**UNTIED, pool='last'),
            3,
        ),
    ],
)
def test_every_tensor_of_a_full_size_file_is_accounted_for(
    kind, changes, scheme, arguments, outputs, transformers
):
    import torch

    config = transformers.GPT2Config(attn_implementation='eager', **changes)
    with torch.device('meta'):
        original = getattr(transformers, kind)(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    masks = {f'transformer.h.{n}.attn.bias': (1, 1, 1024, 1024) for n in range(12)}
    if kind == 'GPT2Model':
        masks = {name.removeprefix('transformer.'): shape for name, shape in masks.items()}
    attempts = attempts_of('gpt2', {**shapes, **masks}, config.to_dict(), {})
    found = next(attempt for attempt in attempts if attempt.fits)
    assert found.match.scheme.name == scheme
    assert found.outputs == outputs
    assert set(found.match.skipped) - masks.keys() == (
        {'lm_head.weight'} if scheme == 'huggingface_tied' else set()
    )
    expected = {**models.arguments('gpt2'), **arguments}
    assert {**models.arguments('gpt2'), **found.arguments} == expected


def test_without_a_config_a_head_in_the_file_is_taken_as_it_is(transformers):
    # It may equal the embedding or not; names and shapes don't tell, so nothing is lost this way.
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config(**THEIRS))
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    found = next(one for one in attempts_of('gpt2', shapes, {}, {}) if one.fits)
    assert found.match.scheme.name == 'huggingface'
    assert not found.arguments['tied']
    assert 'head/kernel' in found.match.leaves
    assert {'tied', 'heads', 'activation', 'epsilon'} <= set(found.guessed)
    del shapes['lm_head.weight']
    found = next(one for one in attempts_of('gpt2', shapes, {}, {}) if one.fits)
    assert found.arguments['tied']
    assert found.outputs == 50
