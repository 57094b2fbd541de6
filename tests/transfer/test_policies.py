"""Policies: phases laid over steps, and what each does to each leaf."""

import pytest

from tljax.errors import UserError
from tljax.models import Outline
from tljax.transfer import peft, policies

PATHS = ['backbone/conv/kernel', 'backbone/conv/bias', 'head/kernel', 'head/bias']
RULES = [('.*', {})]
OUTLINE = Outline(
    stages=('backbone/.*', 'head/.*'),
    members=(tuple(PATHS[:2]), tuple(PATHS[2:])),
    head=tuple(PATHS[2:]),
    norms=(),
    biases=(PATHS[1], PATHS[3]),
    injected=(),
    stem_stages=0,
)


def test_steps_are_numbers_shares_or_the_rest():
    laid = policies.phases(
        [{'steps': 0.25, 'rules': RULES}, {'steps': 10, 'rules': RULES}, {'rules': RULES}],
        100,
        OUTLINE,
    )
    assert [(p.first, p.end) for p in laid] == [(0, 25), (25, 35), (35, 100)]


def test_the_rest_is_never_taken_for_a_share():
    laid = policies.phases([{'steps': 0.94, 'rules': RULES}, {'rules': RULES}], 10, OUTLINE)
    assert [(p.first, p.end) for p in laid] == [(0, 9), (9, 10)]
    with pytest.raises(UserError, match='every phase needs one at least'):
        policies.phases([{'steps': 0.96, 'rules': RULES}, {'rules': RULES}], 10, OUTLINE)


@pytest.mark.parametrize(
    ('policy', 'said'),
    [
        ('fulll', "no 'fulll'. Did you mean 'full'"),
        ('full(rate=1)', "full has no argument 'rate'"),
        ([], 'empty list'),
        ([{'steps': 5, 'rules': RULES}], 'last 5 steps, but config.train.steps is 10'),
        ([{'steps': 5}], 'must be dict(steps=..., rules=[...])'),
        ([{'rules': RULES, 'lr': 1}], "unknown key 'lr'"),
        ([{'rules': RULES}, {'rules': RULES}], 'only the last phase may leave out steps'),
        ([{'steps': 10, 'rules': RULES}, {'rules': RULES}], 'every phase needs one at least'),
        ([{'steps': 2.5, 'rules': RULES}, {'rules': RULES}], '2.5 steps'),
        ([{'steps': 'half', 'rules': RULES}], "steps is 'half'"),
        ([{'steps': float('inf'), 'rules': RULES}], 'inf steps'),
        ([{'steps': 10**400, 'rules': RULES}], '10000000000000000000 steps'),
        ([{'rules': RULES, 'lr': 1, 0: 1}], 'unknown key 0'),
        ([{'rules': [('.*', {'lr': float('inf')})]}], 'lr of the rule for'),
        ('discriminative(rates=(1e400, 1))', 'rates is inf'),
        ([{'rules': ['head/.*']}], "'head/.*' is no rule"),
        ([{'rules': [('.*', 0.1)]}], 'a rule gives None (frozen) or dict'),
        ([{'rules': [('.*', {'rate': 0.1})]}], 'a rule gives None (frozen) or dict'),
        ([{'rules': [('.*', {'lr': 'x'})]}], "lr of the rule for '.*' is 'x'"),
        ([{'rules': [('.*', {'lr': -1})]}], 'it takes a number, 0 or more'),
    ],
)
def test_wrong_policies(policy, said):
    with pytest.raises(UserError) as caught:
        policies.phases(policy, 10, OUTLINE)
    assert said in str(caught.value)


def test_however_a_policy_is_written_it_is_the_one_that_it_is():
    for text in ('from_scratch', ' from_scratch ()', '(from_scratch)'):
        assert policies.is_from_scratch(text)
        assert not policies.chosen_by_gradients(text)
    assert policies.chosen_by_gradients("(surgical)(block='auto')")
    assert peft.chosen('(lora) (rank=2)', ()) == (('', '(lora) (rank=2)'),)


@pytest.mark.parametrize(
    ('rules', 'said'),
    [
        ([('head/.*', {})], "no rule matches the leaf 'backbone/conv/kernel'"),
        ([('.*', {}), ('head/.*', None)], 'is never reached'),
        ([('haed/.*', {}), ('.*', None)], "the rule 'haed/.*' matches no leaf"),
        ([('conv', {}), ('.*', None)], "did you mean '.*conv.*'"),
        ([('.*', None)], 'every leaf is frozen'),
        ([('*', {})], 'is no regular expression'),
    ],
)
def test_wrong_rules(rules, said):
    with pytest.raises(UserError) as caught:
        policies.decide(policies.Phase(0, 1, rules), PATHS)
    assert said in str(caught.value)
    assert 'config.transfer.policy' in str(caught.value)
