"""Paths, rule lists, and halves with holes."""

import re

import jax
import numpy as np
import pytest

from tljax import trees
from tljax.errors import UserError

TREE = {
    'backbone': {
        'convs': {'0': {'bias': 1, 'kernel': 2}, '10': {'kernel': 3}, '2': {'kernel': 4}},
        'scale': 5,
    },
    'head': {'kernel': 6},
}
PATHS = [
    'backbone/convs/0/bias',
    'backbone/convs/0/kernel',
    'backbone/convs/10/kernel',
    'backbone/convs/2/kernel',
    'backbone/scale',
    'head/kernel',
]


def random_tree(rng, depth=3):
    """Nested dicts of 1 to 3 keys, not in sorted order, some of which sort before '/'."""
    keys = rng.choice(['a', 'a-b', 'a.b', 'z', '0', '10', '9'], rng.integers(1, 4), replace=False)
    return {
        str(key): random_tree(rng, depth - 1)
        if depth and rng.random() < 0.6
        else float(rng.normal())
        for key in keys
    }


def message(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    return str(caught.value)


def test_flatten_gives_every_leaf_under_its_path():
    assert trees.flatten(TREE) == dict(zip(PATHS, range(1, 7), strict=True))
    assert list(trees.flatten(TREE)) == PATHS


@pytest.mark.parametrize('seed', range(20))
def test_flatten_has_the_order_of_jax_and_unflatten_undoes_it(seed):
    tree = random_tree(np.random.default_rng(seed))
    flat = trees.flatten(tree)
    assert list(flat.values()) == jax.tree.leaves(tree)
    assert trees.unflatten(flat) == tree
    assert trees.unflatten(dict(reversed(flat.items()))) == tree


def test_flatten_leaves_out_holes_and_empty_dicts():
    assert trees.flatten({'a': None, 'b': {}, 'c': {'d': None}, 'e': 0}) == {'e': 0}
    assert trees.flatten({}) == {}


def test_flatten_keeps_leaves_that_are_false_or_sequences():
    assert trees.flatten({'a': 0, 'b': [1, 2], 'c': ()}) == {'a': 0, 'b': [1, 2], 'c': ()}


def test_flatten_puts_a_prefix_before_every_path():
    assert trees.flatten({'a': {'b': 1}}, 'params/') == {'params/a/b': 1}


def test_flatten_refuses_keys_that_would_make_two_leaves_one():
    with pytest.raises(ValueError, match="the key 'a/b' under 'top/' holds '/'"):
        trees.flatten({'top': {'a/b': 1, 'a': {'b': 2}}})


@pytest.mark.parametrize('paths', [['a', 'a/b/c'], ['a/b/c', 'a'], ['x', 'a/b/c', 'a/b']])
def test_unflatten_refuses_a_leaf_that_is_a_folder_too(paths):
    folder = next(path for path in paths if path.startswith('a') and path != 'a/b/c')
    expected = f"'{folder}' is a leaf, and the folder of the leaf 'a/b/c'"
    with pytest.raises(ValueError, match=f'^{expected}$'):
        trees.unflatten(dict.fromkeys(paths, 1))


def test_unflatten_does_not_take_a_longer_name_for_a_folder():
    assert trees.unflatten({'a': 1, 'ab/c': 2}) == {'a': 1, 'ab': {'c': 2}}


def test_map_with_path_sees_every_leaf_once_and_may_make_holes():
    seen = []

    def function(path, leaf):
        seen.append((path, leaf))
        return None if path == 'b/c' else leaf * 10

    assert trees.map_with_path(function, {'a': 1, 'b': {'c': 2, 'd': 3}, 'e': None}) == {
        'a': 10,
        'b': {'c': None, 'd': 30},
        'e': None,
    }
    assert seen == [('a', 1), ('b/c', 2), ('b/d', 3)]


def test_the_first_rule_that_matches_a_whole_path_wins():
    rules = [('.*/bias', 'b'), ('backbone/convs/(0|2)/.*', 'c'), ('head', 'x'), ('.*', None)]
    with pytest.raises(UserError, match="rule 'head' matches no leaf"):
        trees.match(rules, PATHS)
    del rules[2]
    assert list(trees.match(rules, PATHS).values()) == ['b', 'c', None, 'c', None, None]


def test_match_keeps_the_order_of_paths_and_reads_them_once():
    backwards = iter(PATHS[::-1])
    assert list(trees.match([('.*', 1)], backwards)) == PATHS[::-1]


def test_a_value_may_be_anything_and_is_handed_on_untouched():
    value = {'lr': 0.1}
    assert trees.match([('.*', value)], ['a'])['a'] is value


def test_no_rules_and_no_leaves_is_fine():
    assert trees.match([], []) == {}


def test_an_uncovered_leaf_is_named_with_the_rules_and_the_remedy():
    assert message(trees.match, [('head/.*', 1), ('stem', 2)], PATHS, 'config.x') == (
        "config.x: no rule matches the leaf 'backbone/convs/0/bias'. Rules match whole paths, the "
        "first match wins; the rules are ['head/.*', 'stem']. End the list with ('.*', ...) to "
        'cover every leaf.'
    )


def test_a_misspelt_rule_is_dead_and_the_nearest_leaf_is_suggested():
    assert message(trees.match, [('haed/kernel', 1), ('.*', 2)], PATHS, 'config.x') == (
        "config.x: the rule 'haed/kernel' matches no leaf. Did you mean 'head/kernel'?"
    )


def test_a_rule_that_is_like_nothing_gets_a_list_of_leaves():
    assert message(trees.match, [('QQQ', 1), ('.*', 2)], PATHS, 'config.x') == (
        "config.x: the rule 'QQQ' matches no leaf. Known: 'backbone/convs/0/bias', "
        "'backbone/convs/0/kernel', 'backbone/convs/10/kernel', 'backbone/convs/2/kernel', "
        "'backbone/scale', 'head/kernel'."
    )


def test_a_rule_that_matches_a_part_only_gets_the_rule_that_was_meant():
    assert message(trees.match, [('convs/2', 1), ('.*', 2)], PATHS, 'config.x') == (
        "config.x: the rule 'convs/2' matches no leaf. It matches a part of "
        "['backbone/convs/2/kernel'], but rules match whole paths: did you mean '.*convs/2.*'?"
    )


def test_the_rule_that_was_meant_keeps_alternatives_together():
    text = message(trees.match, [('scale|convs', 1), ('.*', 2)], PATHS)
    suggestion = re.search(r"did you mean '(.*)'\?", text)[1]
    assert suggestion == '.*(?:scale|convs).*'
    matched = trees.match([(suggestion, True), ('.*', False)], PATHS)
    assert [path for path in PATHS if not matched[path]] == ['head/kernel']


def test_a_rule_behind_a_wider_one_is_dead_and_says_why():
    assert message(trees.match, [('.*', 1), ('head/.*', 2)], PATHS, 'config.x') == (
        "config.x: the rule 'head/.*' is never reached: earlier rules already match "
        "['head/kernel']. Move it up or delete it."
    )


@pytest.mark.parametrize('pattern', ['(', '*', '[a', None, 3])
def test_what_is_no_regular_expression_is_named(pattern):
    text = message(trees.match, [('.*', 1), (pattern, 2)], PATHS, 'config.x')
    assert text.startswith(f'config.x: {pattern!r} is no regular expression: ')
    assert text.endswith('.')


@pytest.mark.parametrize('seed', range(10))
def test_partition_and_combine_are_inverse_whichever_half_comes_first(seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    chosen = {path: bool(rng.random() < 0.5) for path in trees.flatten(tree)}
    first, second = trees.partition(tree, chosen)
    assert trees.combine(first, second) == tree
    assert trees.combine(second, first) == tree
    assert set(trees.flatten(first)) == {path for path in chosen if chosen[path]}
    assert set(trees.flatten(second)) == {path for path in chosen if not chosen[path]}
    assert len(jax.tree.leaves(first)) == sum(chosen.values())


def test_halves_keep_the_structure_and_the_very_arrays():
    tree = {'a': {'b': np.ones(2), 'c': np.zeros(3)}}
    first, second = trees.partition(tree, {'a/b': True, 'a/c': False})
    assert first['a'].keys() == second['a'].keys() == {'b', 'c'}
    assert first['a']['b'] is tree['a']['b']
    assert second['a']['c'] is tree['a']['c']
    assert first['a']['c'] is None
    assert second['a']['b'] is None


def test_partition_asks_about_every_leaf():
    with pytest.raises(KeyError, match='a/c'):
        trees.partition({'a': {'b': 1, 'c': 2}}, {'a/b': True})


def test_combine_keeps_falsy_leaves_and_shared_holes():
    assert trees.combine({'a': 0, 'b': None, 'c': None}, {'a': None, 'b': 0.0, 'c': None}) == {
        'a': 0,
        'b': 0.0,
        'c': None,
    }


def test_combine_refuses_halves_of_different_trees():
    with pytest.raises(ValueError, match='structure'):
        trees.combine({'a': 1}, {'b': 1})


def test_gradients_and_combine_pass_through_jit():
    first, second = trees.partition({'a': 2.0, 'b': 3.0}, {'a': True, 'b': False})

    @jax.jit
    def gradient(first, second):
        def product(first):
            tree = trees.combine(first, second)
            return tree['a'] * tree['b']

        return jax.grad(product)(first)

    assert gradient(first, second) == {'a': 3.0, 'b': None}


@pytest.mark.parametrize(
    ('leaf', 'expected'),
    [
        (np.zeros((2, 3), np.float32), 24),
        (np.zeros((), np.float64), 8),
        (np.zeros((0, 5), np.int8), 0),
        (jax.ShapeDtypeStruct((4,), jax.numpy.bfloat16), 8),
    ],
)
def test_nbytes_counts_arrays_and_shapes(leaf, expected):
    assert trees.nbytes({'x': {'y': leaf, 'z': None}}) == expected
    assert trees.nbytes({'x': leaf, 'y': leaf}) == 2 * expected
