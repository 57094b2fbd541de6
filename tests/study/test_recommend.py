"""What is recommended for which ranking, and why."""

import shlex

import pytest

from tljax.study.recommend import IN_WORDS, is_lifted, recommend, rescaled


def ranking(labels=40, classes=10, probe=0.8, low=0.1, uri='package:a', worst='', batch=16):
    first = {
        'name': 'a',
        'uri': uri,
        'interval': {'mean': -0.1, 'low': -0.2, 'high': 0.0},
        'worst': worst,
        'probe': {'mean': probe, 'low': probe - 0.05, 'high': probe + 0.05},
        'lift': None if low is None else {'mean': low + 0.1, 'low': low, 'high': low + 0.2},
        'seconds': {'features': 6.0},
    }
    return {
        'sources': [first, {**first, 'name': 'b', 'uri': 'package:b'}],
        'kind': 'classes',
        'examples': labels,
        'available': labels,
        'classes': classes,
        'validation': 20,
        'batch_size': batch,
    }


@pytest.mark.parametrize(
    ('changes', 'policy'),
    [
        ({}, 'linear_probe'),  # few labels, and the source knows the target
        ({'probe': 0.2}, 'head_then_full'),  # few, and it knows little
        ({'labels': 400}, 'head_then_full'),  # labels enough to move its features
        ({'low': -0.1}, 'full'),  # not shown to know anything
    ],
)
def test_the_policy_follows_labels_and_what_the_source_knows(changes, policy):
    said = recommend(ranking(**changes))
    assert said.source == 'a'
    assert said.policy == policy
    assert f'{IN_WORDS[policy]} first' in said.sentence
    assert ('expect little' in said.sentence) == (policy == 'full')
    assert f'--config.transfer.policy={policy}' in said.overrides


def test_the_sentence_has_its_reasons_and_the_budget():
    said = recommend(ranking())
    assert said.steps == 40 * 50 / 16
    for part in ('40 labels, 10 classes', '80%', '125 steps (50 epochs, about 6 s here)'):
        assert part in said.sentence
    # 6 s for the 60 examples' features; a step of everything costs three times as much.
    whole = recommend(ranking(probe=0.2))
    assert whole.seconds == pytest.approx(3 * 6 / 60 * 16 * whole.steps)
    assert 'head, then everything first, 50 steps (20 epochs, about 4 min here)' in whole.sentence


def test_very_many_labels_need_no_source():
    assert 'expect little' in recommend(ranking(labels=10_000)).sentence
    assert 'expect little' not in recommend(ranking(labels=9_000)).sentence


def test_nothing_is_recommended_where_all_are_disqualified():
    said = recommend(ranking(worst='disqualified'))
    assert (said.source, said.policy, said.overrides) == ('', '', ())
    assert 'none of these sources' in said.sentence


def test_an_untrained_model_in_front_is_no_source():
    said = recommend(ranking(uri='random:convnet()', low=None))
    assert said.source == 'b'
    assert '--config.source.uri=package:b' in said.overrides


def test_untrained_models_alone_are_trained_whole():
    found = ranking(uri='random:convnet()', low=None)
    found['sources'][1]['uri'] = 'random:convnet(width=4)'
    said = recommend(found)
    assert (said.source, said.policy) == ('a', 'full')
    assert not any('source.uri' in word for word in said.overrides)


def test_a_source_that_cannot_be_used_is_passed_over():
    found = ranking(uri='random:convnet()', low=None)
    found['sources'][1]['worst'] = 'disqualified'
    assert recommend(found).source == 'a'


def test_overrides_are_words_of_a_shell():
    said = recommend(ranking(uri='/tmp/my models/a'))
    words = shlex.split(' '.join(said.overrides))
    assert '--config.source.uri=/tmp/my models/a' in words
    assert '--config.model.name=source' in words
    assert "--config.transfer.reset=('head/.*',)" in words


@pytest.mark.parametrize('low', [0.1, -0.1])
def test_texts_have_sequences_and_keep_the_head_of_their_source(low):
    """A probe of next tokens and labels a class say nothing of how to train a language model."""
    found = ranking(probe=0.05, low=low)
    said = recommend({**found, 'kind': 'tokens', 'examples': 1000, 'available': 1600})
    assert said.policy == 'full'
    assert said.steps == 1600 * 20 / 16
    assert said.sentence.startswith('1,600 sequences; a ')
    assert not any(word in said.sentence for word in ('labels', 'classes', 'probe'))
    assert ('not shown' in said.sentence) == ('expect little' in said.sentence) == (low < 0)
    assert '--config.transfer.reset=()' in shlex.split(' '.join(said.overrides))


def test_skill_and_lift():
    assert rescaled(0.25, 4) == 0
    assert rescaled(1.0, 4) == 1
    source = ranking()['sources'][0]
    assert is_lifted(source)
    assert not is_lifted({**source, 'lift': {'mean': 0.1, 'low': 0.0, 'high': 0.2}})
    assert not is_lifted({**source, 'lift': {'mean': 0.1, 'low': None, 'high': None}})
