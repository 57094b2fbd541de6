"""BERT against Hugging Face transformers, under each name that its files have."""

import jax
import numpy as np
import pytest
from parity_support import Case, check

from tljax import models, trees
from tljax.pretrained.attempt import attempts_of

ARGUMENTS = dict(width=32, layers=3, heads=4, hidden=48, vocabulary=50, positions=20)
EXAMPLE = {'tokens': (12,), 'mask': (12,), 'types': (12,)}
THEIRS = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    vocab_size=50,
    max_position_embeddings=20,
    num_labels=5,
    attn_implementation='eager',
)
CASES = {
    name: Case(name, 'bert', {**ARGUMENTS, **changes}, EXAMPLE, 5, scheme)
    for name, scheme, changes in (
        ('bert', 'huggingface', {}),
        ('bert_gelu_tanh', 'huggingface', dict(activation='gelu_tanh', epsilon=1e-3)),
        ('bert_relu', 'huggingface', dict(activation='relu', heads=8)),
        ('bert_first', 'huggingface', dict(pool='first')),
        ('bert_2018', 'huggingface_2018', {}),
        ('bert_sentence', 'sentence_transformers', dict(pool='mean')),
        ('distilbert', 'distilbert', dict(types=0, pool='first')),
    )
}


@pytest.fixture(scope='module')
def transformers(torchvision):
    return pytest.importorskip('transformers')


def classifier(transformers, **changes):
    config = transformers.BertConfig(**{**THEIRS, **changes})
    return transformers.BertForSequenceClassification(config).eval()


def call(module, batch):
    return module(batch['tokens'], batch['mask'], batch['types']).logits


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('bert', {}),
        ('bert_gelu_tanh', dict(hidden_act='gelu_new', layer_norm_eps=1e-3)),
        ('bert_relu', dict(hidden_act='relu', num_attention_heads=8)),
    ],
)
def test_same_function(name, changes, transformers):
    check(CASES[name], classifier(transformers, **changes), call)


def test_same_function_without_a_pooler(transformers):
    config = transformers.BertConfig(**THEIRS)
    original = transformers.BertForTokenClassification(config).eval()
    check(CASES['bert_first'], original, lambda module, batch: call(module, batch)[:, 0])


def test_same_function_under_the_names_of_2018(transformers):
    import torch

    class OldNorm(torch.nn.Module):
        """Layer normalisation whose leaves have the names that TensorFlow gave them."""

        def __init__(self, width):
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.ones(width))
            self.beta = torch.nn.Parameter(torch.zeros(width))

        def forward(self, x):
            return torch.nn.functional.layer_norm(x, x.shape[-1:], self.gamma, self.beta, 1e-12)

    original = classifier(transformers)
    for module in list(original.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.LayerNorm):
                setattr(module, name, OldNorm(32))
    check(CASES['bert_2018'], original, call)


def test_same_function_with_the_mean_of_tokens(transformers):
    original = classifier(transformers)

    def mean_of_tokens(module, batch):
        out = module.bert(batch['tokens'], batch['mask'], batch['types']).last_hidden_state
        real = batch['mask'][:, :, None].float()
        return module.classifier((out * real).sum(1) / real.sum(1))

    check(CASES['bert_sentence'], original, mean_of_tokens)


def test_same_function_as_distilbert(transformers):
    config = transformers.DistilBertConfig(
        dim=32,
        n_layers=3,
        n_heads=4,
        hidden_dim=48,
        vocab_size=50,
        max_position_embeddings=20,
        num_labels=5,
        attn_implementation='eager',
    )
    original = transformers.DistilBertForTokenClassification(config).eval()

    def first(module, batch):
        return module(batch['tokens'], batch['mask']).logits[:, 0]

    check(CASES['distilbert'], original, first)


@pytest.mark.parametrize(
    ('kind', 'scheme', 'skipped', 'outputs'),
    [
        ('DistilBertModel', 'distilbert', 0, 0),
        ('DistilBertForMaskedLM', 'distilbert', 6, 0),
        ('DistilBertForTokenClassification', 'distilbert', 0, 2),
        ('DistilBertForSequenceClassification', 'distilbert_classifier', 4, 0),
    ],
)
def test_every_tensor_of_a_full_size_distilbert(kind, scheme, skipped, outputs, transformers):
    import torch

    config = transformers.DistilBertConfig(attn_implementation='eager')
    with torch.device('meta'):
        original = getattr(transformers, kind)(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    attempts = attempts_of('bert', shapes, config.to_dict(), {})
    found = next(attempt for attempt in attempts if attempt.fits)
    assert (found.match.scheme.name, found.outputs) == (scheme, outputs)
    assert len(found.match.skipped) == skipped
    expected = {**models.arguments('bert'), 'layers': 6, 'types': 0, 'pool': 'first'}
    assert {**models.arguments('bert'), **found.arguments} == expected


@pytest.mark.parametrize(
    ('kind', 'pooling', 'scheme', 'pool', 'outputs', 'skipped'),
    [
        ('BertModel', {}, 'huggingface', 'cls', 0, 0),
        ('BertForSequenceClassification', {}, 'huggingface', 'cls', 2, 0),
        ('BertForTokenClassification', {}, 'huggingface', 'first', 2, 0),
        ('BertForMaskedLM', {}, 'huggingface', 'first', 0, 7),
        ('BertForPreTraining', {}, 'huggingface', 'cls', 0, 9),
        ('BertModel', dict(pooling_mode_mean_tokens=True), 'sentence_transformers', 'mean', 0, 2),
        ('BertModel', dict(pooling_mode_cls_token=True), 'sentence_transformers', 'first', 0, 2),
    ],
)
def test_every_tensor_of_a_full_size_file_is_accounted_for(
    kind, pooling, scheme, pool, outputs, skipped, transformers
):
    import torch

    config = transformers.BertConfig(attn_implementation='eager')
    with torch.device('meta'):
        original = getattr(transformers, kind)(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    found = next(
        attempt
        for attempt in attempts_of('bert', shapes, {**config.to_dict(), 'pooling': pooling}, {})
        if attempt.fits
    )
    assert (found.match.scheme.name, found.outputs) == (scheme, outputs)
    assert len(found.match.skipped) == skipped
    expected = {**models.arguments('bert'), **found.arguments, 'pool': pool}
    assert {**models.arguments('bert'), **found.arguments} == expected
    assert found.arguments['heads'] == 12


def test_the_config_beside_a_file_decides_what_shapes_do_not_tell(transformers):
    config = transformers.BertConfig(
        **{**THEIRS, 'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-3, 'num_attention_heads': 8}
    )
    original = transformers.BertForSequenceClassification(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    found = next(iter(attempts_of('bert', shapes, config.to_dict(), {})))
    assert found.fits
    assert (found.arguments['activation'], found.arguments['epsilon']) == ('gelu_tanh', 1e-3)
    assert (found.arguments['heads'], found.outputs) == (8, 5)


@pytest.mark.parametrize(
    ('kind', 'type_of'),
    [('Roberta', 'roberta'), ('XLMRoberta', 'xlm-roberta'), ('Camembert', 'camembert')],
)
def test_roberta_is_not_read_as_bert(kind, type_of, transformers):
    # Its own sizes but for the width; only its config, or the number of positions, tells.
    sizes = dict(max_position_embeddings=514, type_vocab_size=1)
    config = getattr(transformers, f'{kind}Config')(**{**THEIRS, **sizes})
    original = getattr(transformers, f'{kind}Model')(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    for beside, said in ((config.to_dict(), f'model_type is {type_of!r}'), ({}, '514 positions')):
        attempts = list(attempts_of('bert', shapes, beside, {}))
        assert not any(attempt.fits for attempt in attempts)
        assert said in attempts[0].trouble
    assert next(iter(attempts_of('bert', shapes, {'model_type': 'bert'}, {}))).fits


def test_one_type_alone_does_not_make_a_roberta(transformers):
    original = transformers.BertModel(transformers.BertConfig(**THEIRS, type_vocab_size=1))
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    assert next(iter(attempts_of('bert', shapes, {}, {}))).fits


def test_parameters_are_as_many_as_theirs(transformers):
    import torch

    with torch.device('meta'):
        original = transformers.BertModel(transformers.BertConfig())
    theirs = sum(value.numel() for value in original.parameters())
    example = {'tokens': jax.ShapeDtypeStruct((8,), np.int32)}
    ours = trees.flatten(models.build({'name': 'bert'}, example, 2).shapes()['params'])
    assert theirs == sum(leaf.size for path, leaf in ours.items() if path.startswith('backbone/'))
