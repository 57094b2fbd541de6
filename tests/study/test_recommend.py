"""What is recommended for which ranking, and why."""

import shlex

import pytest

from tljax.study.recommend import IN_WORDS, is_lifted, recommend, rescaled

HEAD = {
    'shared': 10,
    'classes': 10,
    'same_order': True,
    'head': {'mean': 0.7, 'low': 0.6, 'high': 0.8},
}


def ranking(
    labels=40, classes=10, probe=0.8, low=0.1, uri='package:a', worst='', batch=16, known=None
):
    first = {
        'name': 'a',
        'uri': uri,
        'interval': {'mean': -0.1, 'low': -0.2, 'high': 0.0},
        'worst': worst,
        'probe': {'mean': probe, 'low': probe - 0.05, 'high': probe + 0.05},
        'lift': None if low is None else {'mean': low + 0.1, 'low': low, 'high': low + 0.2},
        'known': known,
    }
    return {
        'sources': [first, {**first, 'name': 'b', 'uri': 'package:b'}],
        'kind': 'classes',
        'examples': labels,
        'available': labels,
        'classes': classes,
        'validation': 20,
        'batch_size': batch,
        'steps': 100,
    }


@pytest.mark.parametrize(
    ('changes', 'policy'),
    [
        ({}, 'head_then_full'),
        ({'probe': 0.2}, 'head_then_full'),  # its score shows that it knows something
        ({'low': -0.1}, 'head_then_full'),  # a probe does
        ({'low': -0.1, 'probe': 0.2, 'known': HEAD}, 'head_then_full'),  # its head does
        ({'low': -0.1, 'probe': 0.2}, 'full'),  # nothing does
        ({'labels': 10_000}, 'full'),  # labels are plentiful
    ],
)
def test_the_policy_follows_labels_and_what_the_source_knows(changes, policy):
    said = recommend(ranking(**changes))
    assert said.source == 'a'
    assert said.policy == policy
    assert f'{IN_WORDS[policy]} first' in said.sentence
    assert f'--config.transfer.policy={policy}' in said.overrides


def test_little_is_expected_where_neither_score_nor_head_shows_anything():
    assert 'expect little' not in recommend(ranking()).sentence
    assert 'expect little' in recommend(ranking(low=-0.1)).sentence
    assert 'expect little' not in recommend(ranking(low=-0.1, known=HEAD)).sentence


@pytest.mark.parametrize(
    ('changes', 'kept'),
    [
        ({}, True),
        ({'same_order': False}, False),
        ({'head': None}, False),
        ({'head': {'mean': 0.12, 'low': 0.02, 'high': 0.22}}, False),  # the names mean others
    ],
)
def test_a_head_for_the_same_classes_is_kept(changes, kept):
    said = recommend(ranking(known={**HEAD, **changes}))
    reset = '()' if kept else "('head/.*',)"
    assert f'--config.transfer.reset={reset}' in shlex.split(' '.join(said.overrides))
    assert ('gets 70% of the labelled examples right as it is' in said.sentence) == kept
    assert ('knows 10 of the classes by name' in said.sentence) != kept


def test_the_sentence_has_its_reasons_and_the_budget():
    said = recommend(ranking())
    for part in ('40 labels, 10 classes', '80%', '100 steps (40 epochs)'):
        assert part in said.sentence


@pytest.mark.parametrize(
    ('labels', 'steps', 'expected'),
    [
        (40, 100, 100),  # the config's own
        (4000, 100, 4000 * 20 / 16),
        (40, 10_000, 40 * 1000 / 16),  # more would be absurd
    ],
)
def test_no_fewer_steps_than_the_config_has(labels, steps, expected):
    assert recommend({**ranking(labels=labels), 'steps': steps}).steps == expected


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
