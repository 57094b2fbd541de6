"""Parameters as paths: nested dicts of arrays, rule lists over their leaves, halves with holes.

A tree is a nested dict with string keys; a leaf's path joins its keys with '/', for example
`backbone/conv1/kernel`. A rule list is a list of (regular expression, value) pairs; a leaf gets
the value of the first rule whose expression matches its whole path.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tljax.errors import UserError, nearest

Tree = dict[str, Any]
Rules = Sequence[tuple[str, Any]]


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Maps each leaf's path to the leaf; holes (None) are left out.

    The order is that of `jax.tree.leaves`: keys sorted within each dict.

    Raises:
      ValueError: a key holds '/', so that two leaves could get the same path.

    >>> flatten({'head': {'kernel': 1, 'bias': None}, 'backbone': {'scale': 2}})
    {'backbone/scale': 2, 'head/kernel': 1}
    """
    flat = {}
    for key in sorted(tree):
        if '/' in str(key):
            raise ValueError(
                f"the key {key!r} under {prefix!r} holds '/', which joins keys in paths"
            )
        path, value = f'{prefix}{key}', tree[key]
        if isinstance(value, Mapping):
            flat.update(flatten(value, path + '/'))
        elif value is not None:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The nested dict whose `flatten` is `flat`.

    Raises:
      ValueError: a path is both a leaf and a folder of leaves.

    >>> unflatten({'head/kernel': 1, 'head/bias': 2})
    {'head': {'kernel': 1, 'bias': 2}}
    """
    tree: Tree = {}
    for path in flat:
        *parents, name = path.split('/')
        for depth in range(1, len(parents) + 1):
            if (folder := '/'.join(parents[:depth])) in flat:
                raise ValueError(f'{folder!r} is a leaf, and the folder of the leaf {path!r}')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = flat[path]
    return tree


def map_with_path(function: Callable[[str, Any], Any], tree: Mapping[str, Any]) -> Tree:
    """Applies `function(path, leaf)` to every leaf; the result may be None, which makes a hole.

    >>> map_with_path(lambda path, leaf: f'{path}={leaf}', {'head': {'bias': 2}})
    {'head': {'bias': 'head/bias=2'}}
    """

    def walk(node: Mapping[str, Any], prefix: str) -> Tree:
        return {
            key: walk(value, f'{prefix}{key}/')
            if isinstance(value, Mapping)
            else (None if value is None else function(prefix + key, value))
            for key, value in node.items()
        }

    return walk(tree, '')


def match(rules: Rules, paths: Iterable[str], where: str = 'rules') -> dict[str, Any]:
    """Gives each path the value of the first rule that matches all of it.

    Args:
      rules: (regular expression, value) pairs; the expression must match the whole path.
      paths: leaf paths.
      where: what the rule list is called in error messages, such as a config key.

    Raises:
      UserError: an expression is not valid, a path is matched by no rule, or a rule is dead:
        no path is left for it.

    >>> match([('head/.*', 1.0), ('.*', None)], ['backbone/kernel', 'head/kernel'])
    {'backbone/kernel': None, 'head/kernel': 1.0}
    """
    paths = list(paths)
    compiled = [compile_rule(pattern, where) for pattern, _ in rules]
    values, used = {}, set()
    for path in paths:
        index = next((i for i, regex in enumerate(compiled) if regex.fullmatch(path)), None)
        if index is None:
            raise UserError(
                f'{where}: no rule matches the leaf {path!r}. Rules match whole paths, the first '
                f'match wins; the rules are {[pattern for pattern, _ in rules]}. '
                "End the list with ('.*', ...) to cover every leaf."
            )
        used.add(index)
        values[path] = rules[index][1]
    for index, (pattern, _) in enumerate(rules):
        if index not in used:
            raise UserError(dead_rule(pattern, compiled[index], paths, where))
    return values


def compile_rule(pattern: str, where: str) -> re.Pattern[str]:
    """The compiled expression.

    Raises:
      UserError: it is no valid regular expression.
    """
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f'{where}: {pattern!r} is no regular expression: {error}.') from None


def dead_rule(pattern: str, regex: re.Pattern[str], paths: Sequence[str], where: str) -> str:
    """The message for a rule that decides about no leaf: what it shadows or what comes nearest."""
    shadowed = [path for path in paths if regex.fullmatch(path)]
    if shadowed:
        return (
            f'{where}: the rule {pattern!r} is never reached: earlier rules already match '
            f'{shadowed[:3]}. Move it up or delete it.'
        )
    inside = [path for path in paths if regex.search(path)]
    middle = f'(?:{pattern})' if '|' in pattern else pattern
    hint = (
        f' It matches a part of {inside[:3]}, but rules match whole paths: did you mean '
        f"'.*{middle}.*'?"
        if inside
        else nearest(pattern, paths)
    )
    return f'{where}: the rule {pattern!r} matches no leaf.{hint}'


def partition(tree: Tree, chosen: Mapping[str, bool]) -> tuple[Tree, Tree]:
    """Splits a tree into two of the same structure: chosen leaves, and the others.

    Args:
      tree: nested dict.
      chosen: for each path, whether its leaf goes to the first half.

    Returns:
      Two trees with None where the leaf is in the other half; jax sees holes as no leaves.

    >>> partition({'a': 1, 'b': 2}, {'a': True, 'b': False})
    ({'a': 1, 'b': None}, {'a': None, 'b': 2})
    """
    first = map_with_path(lambda path, leaf: leaf if chosen[path] else None, tree)
    second = map_with_path(lambda path, leaf: None if chosen[path] else leaf, tree)
    return first, second


def combine(first: Tree, second: Tree) -> Tree:
    """Puts the halves of `partition` together again.

    >>> combine({'a': 1, 'b': None}, {'a': None, 'b': 2})
    {'a': 1, 'b': 2}
    """
    import jax

    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )


def nbytes(tree: Any) -> int:
    """Bytes held by the arrays (or shapes) of a tree.

    >>> import numpy as np
    >>> nbytes({'a': np.zeros((2, 3), np.float32), 'b': None})
    24
    """
    import jax

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
