"""Texts as examples of scores, against the model called as it is and sums in float64."""

import json

import numpy as np
import pytest
import small_texts
from ml_collections import ConfigDict

from tljax import models, trees
from tljax.data.text.tokenizer import trained
from tljax.errors import UserError
from tljax.models import arguments
from tljax.ranking import NotDefined
from tljax.study import contenders, extract, positions


@pytest.fixture(scope='module', autouse=True)
def quickly():
    with small_texts.quickly():
        yield


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)
    return directory


@pytest.fixture(scope='module')
def config(texts):
    return small_texts.config_of('language_modelling', texts, source__uri='')


@pytest.fixture(scope='module')
def source(config):
    return small_texts.source_of(config)


@pytest.fixture(scope='module')
def found(config, source):
    return extract.extract(config, source)


@pytest.fixture(scope='module')
def plain(config, source, found):
    """Sequences of the training subset, logits and features of each position, in float64."""
    experiment = found.experiment
    subset = experiment.data.subset(config.seed)
    batch = {name: array[subset] for name, array in experiment.data.split('train').arrays().items()}
    params = trees.unflatten(source.leaves)
    module = models.merge(experiment.model.graph(train=False), params, {})
    logits, features = module(batch), module.features(batch)
    return batch, np.asarray(logits, np.float64), np.asarray(features)


def asked(batch):
    """(sequence, place, next token) of every position whose next token is of its document."""
    found = []
    for m, (tokens, segments) in enumerate(zip(batch['tokens'], batch['segments'], strict=True)):
        for p in range(len(tokens) - 1):
            if segments[p + 1] and segments[p] == segments[p + 1]:
                found.append((m, p, int(tokens[p + 1])))
    return found


def test_a_row_is_a_position_with_what_the_head_reads_there(found, plain):
    batch, _, features = plain
    expected = asked(batch)
    train = found.train
    assert (train.examples, train.total) == (8, 8)
    assert len(expected) < small_texts.LENGTH * 8 - 8  # padding, and first tokens of documents
    rows = zip(train.example_N, train.labels_N, strict=True)
    assert [(int(m), int(label)) for m, label in rows] == [(m, label) for m, _, label in expected]
    wanted = np.stack([features[m, p] for m, p, _ in expected])
    np.testing.assert_allclose(train.features_NxD, wanted, rtol=1e-4, atol=1e-5)
    assert train.probabilities_NxS is None  # no (positions, vocabulary) table is kept


def test_the_likelihood_is_that_of_every_next_token_by_word(found, plain):
    batch, logits, _ = plain
    nats, words = np.zeros(8), np.zeros(8)
    for m, p, token in asked(batch):
        row = logits[m, p]
        nats[m] += row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
    for m in range(8):
        real = {int(batch['words'][m, p + 1]) for of, p, _ in asked(batch) if of == m}
        words[m] = len(real - {0})
    np.testing.assert_allclose(found.train.likelihood.nats_M, nats, rtol=1e-4)
    np.testing.assert_array_equal(found.train.likelihood.words_M, words)
    expected = nats.sum() / words.sum()
    assert found.train.score('log_likelihood', 0) == pytest.approx(expected, rel=1e-5)


def test_halves_are_of_sequences_and_take_all_of_a_sequence(found):
    train = found.train
    for half in train.halves(4, seed=1):
        assert len(half) == 4
        part = train.of(half)
        rows = np.isin(train.example_N, half)
        np.testing.assert_array_equal(part.features_NxD, train.features_NxD[rows])
        np.testing.assert_array_equal(half[part.example_N], train.example_N[rows])
        np.testing.assert_array_equal(part.likelihood.nats_M, train.likelihood.nats_M[half])
        assert part.examples == 4


def test_more_positions_than_are_looked_at_are_drawn_by_the_seed(
    config, source, found, monkeypatch
):
    monkeypatch.setattr(positions, 'POSITIONS', 30)
    few, again = (extract.extract(config, source).train for _ in range(2))
    np.testing.assert_array_equal(few.features_NxD, again.features_NxD)
    assert len(few.labels_N) == 30
    known = {tuple(row) for row in found.train.features_NxD}
    assert all(tuple(row) in known for row in few.features_NxD)
    assert len(set(few.example_N.tolist())) > 4  # from all over the texts
    # The likelihood is of every position all the same.
    np.testing.assert_array_equal(few.likelihood.nats_M, found.train.likelihood.nats_M)


def test_more_sequences_than_are_read_are_drawn_by_the_seed(config, source, monkeypatch):
    monkeypatch.setattr(positions, 'SEQUENCES', 5)
    few = extract.extract(config, source).train
    assert (few.examples, few.total, len(few.likelihood)) == (5, 8, 5)
    assert set(few.example_N.tolist()) <= set(range(5))


def test_a_head_over_other_tokens_is_not_asked(texts, config, source, found, tmp_path):
    """A model of our own whose tokenizer.json is not the one that the texts are read with."""
    model = tmp_path / 'model'
    model.mkdir()
    (model / 'card.json').write_text(json.dumps({'config': {'data': {}}}))
    text = found.experiment.data.form.tokenizer.text
    other = config.copy_and_resolve_references()
    other.source.uri = str(model)
    (model / 'tokenizer.json').write_text(text)
    assert extract.extract(other, source).train.likelihood is not None
    (model / 'tokenizer.json').write_text(trained(['zebra'] * 3, small_texts.VOCABULARY).text)
    train = extract.extract(other, source).train
    assert train.likelihood is None
    with pytest.raises(NotDefined, match='own head over the tokens'):
        train.score('log_likelihood', 0)
    np.testing.assert_array_equal(train.features_NxD, found.train.features_NxD)


def test_one_vector_a_text_is_refused(texts, config):
    sizes = {**small_texts.SIZES, **small_texts.STILL}
    pooled = config.copy_and_resolve_references()
    pooled.model = ConfigDict(arguments('gpt2', pool='last', tied=False, **sizes))
    with pytest.raises(UserError, match='gives one vector a text'):
        extract.extract(pooled, contenders.untrained(pooled))
