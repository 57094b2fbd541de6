"""Rules that surgery refuses: dead, shadowed, malformed; and how many problems are shown."""

import pytest
from surgery_nets import net, refusal, shape

from tljax.errors import UserError
from tljax.transfer import mismatch, plan


@pytest.mark.parametrize(
    ('key', 'rule', 'side'),
    [
        ('rename', ('haed/kernel', 'x'), 'source'),
        ('reset', 'haed/kernel', 'target'),
        ('resize', ('haed/kernel', 'channels'), 'target'),
        ('unused', 'haed/kernel', 'source'),
    ],
)
def test_a_dead_rule_is_named_with_its_key_and_the_nearest_leaf(key, rule, side):
    assert refusal(net(), net(), **{key: [rule]}) == [
        f"config.transfer.{key}: the rule 'haed/kernel' matches no leaf. Did you mean "
        f"'head/kernel'? It is compared with the paths of the {side}."
    ]


@pytest.mark.parametrize(
    ('key', 'rules', 'matched'),
    [
        ('rename', [('head/(.*)', r'head/\1'), ('head/bias', 'head/bias')], ['head/bias']),
        ('reset', ['head/.*', 'head/bias'], ['head/bias']),
        ('resize', [('.*', 'channels'), ('head/bias', 'position')], ['head/bias']),
        ('unused', ['spare/.*', 'spare/x'], ['spare/x']),
    ],
)
def test_a_rule_behind_a_wider_one_is_dead(key, rules, matched):
    last = rules[-1] if isinstance(rules[-1], str) else rules[-1][0]
    assert refusal(
        net() | {'spare/x': shape(2)} if key == 'unused' else net(), net(), **{key: rules}
    ) == [
        f'config.transfer.{key}: the rule {last!r} is never reached: earlier rules already match '
        f'{matched}. Move it up or delete it.'
    ]


def test_resizing_only_what_is_reset_is_dead():
    rules = {'reset': ['head/.*'], 'resize': [('head/kernel', 'channels')]}
    assert refusal(net(), net(), **rules) == [
        "config.transfer.resize: the rule 'head/kernel' decides nothing about the leaves it "
        "matches, such as 'head/kernel': config.transfer.reset resets them. Delete it."
    ]


def test_allowing_only_what_is_read_is_dead():
    assert refusal(net(), net(), unused=['head/.*']) == [
        "config.transfer.unused: the rule 'head/.*' decides nothing about the leaves it matches, "
        "such as 'head/bias', 'head/kernel': they are read. Delete it."
    ]


def test_allowing_what_a_reset_leaves_unread_anyway_is_no_error():
    manifest = plan(net(10), net(5), reset=['head/.*'], unused=['head/.*'])
    assert manifest.count('unused') == 2


@pytest.mark.parametrize(
    ('rules', 'text'),
    [
        (
            {'reset': 'head/.*'},
            "config.transfer.reset must be a list of expressions, not 'head/.*'.",
        ),
        ({'unused': [3]}, 'config.transfer.unused must be a list of expressions, not [3].'),
        (
            {'rename': ('a', 'b')},
            'config.transfer.rename must be a list of (expression, replacement) pairs, not '
            "('a', 'b').",
        ),
        (
            {'rename': [('a', 'b', 'c')]},
            'config.transfer.rename must be a list of (expression, replacement) pairs, not '
            "[('a', 'b', 'c')].",
        ),
        (
            {'resize': ['ab']},
            "config.transfer.resize must be a list of (expression, how) pairs, not ['ab'].",
        ),
        (
            {'resize': [('head/kernel', 'positions')]},
            "config.transfer.resize: the rule 'head/kernel' asks for 'positions'. Did you mean "
            "'position'?",
        ),
        (
            {'resize': [('head/kernel', 'crop')]},
            "config.transfer.resize: the rule 'head/kernel' asks for 'crop'. Known: 'position', "
            "'channels'.",
        ),
        (
            {'reset': ['head/(']},
            "config.transfer.reset: 'head/(' is no regular expression: missing ), unterminated "
            'subpattern at position 5.',
        ),
        (
            {'rename': [('head/bias', r'x/\1')]},
            r"config.transfer.rename: the replacement 'x/\\1' of 'head/bias' cannot be filled in "
            "for the leaf 'head/bias': invalid group reference 1 at position 3.",
        ),
        (
            {'rename': [('head/bias', r'x/\g<y>')]},
            r"config.transfer.rename: the replacement 'x/\\g<y>' of 'head/bias' cannot be "
            r'filled in '
            "for the leaf 'head/bias': unknown group name 'y'.",
        ),
    ],
)
def test_a_malformed_rule_is_refused_at_once(rules, text):
    with pytest.raises(UserError) as caught:
        plan(net(), net(), **rules)
    assert str(caught.value) == text


def test_rules_may_be_lists_as_json_gives_them():
    assert plan(net(prefix='x'), net(), rename=[['x/(.*)', r'backbone/\1']]).count('renamed') == 3


def test_all_kinds_of_problems_come_at_once_rules_first():
    source = net(10) | {'spare': shape(2)}
    target = net(5) | {'new': shape(3)}
    problems = refusal(source, target, reset=['nothing'])
    assert [problem.split(':')[0] for problem in problems] == [
        'config.transfer.reset',
        "'head/bias'",
        "'head/kernel'",
        "'new'",
        "'spare'",
    ]


def test_eight_problems_are_shown_and_the_others_counted():
    source = {f'layer{i:02}/kernel': shape(2) for i in range(11)}
    problems = refusal(source, {})
    assert len(problems) == 9
    assert problems[-1] == 'and 3 more.'
    assert len(refusal(dict(list(source.items())[:8]), {})) == 8


def test_only_what_is_shown_is_written_out(monkeypatch):
    looked_up, closest = [], mismatch.closest
    monkeypatch.setattr(
        mismatch, 'closest', lambda path, *args: looked_up.append(path) or closest(path, *args)
    )
    source = {f'encoder/layers/{i}/mlp/kernel': shape(2, 2) for i in range(200)}
    target = {f'decoder/blocks/{i}/ffn/weight': shape(2, 3) for i in range(200)}
    assert refusal(source, target)[-1] == 'and 392 more.'
    assert len(looked_up) == 8
