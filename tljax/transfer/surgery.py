"""Matching a source's leaves to a target's: by path, under four rule lists, nothing left over.

The leaves of a model are its parameters and batch statistics together, path -> array. Renaming
comes first; then every target leaf needs just one source leaf of its shape and dtype, and every
source leaf must be read, unless a rule allows otherwise:

  config.transfer.rename: (expression, replacement), on source paths
  config.transfer.reset:  expressions on target paths: leaves kept at their fresh initialisation
  config.transfer.resize: (expression, 'position' or 'channels'), on target paths
  config.transfer.unused: expressions on source paths: leaves that may stay unread

Expressions match whole paths, the first match wins, and a rule that decides nothing is an error.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax

from tljax import trees
from tljax.errors import UserError, nearest
from tljax.transfer import mismatch
from tljax.transfer import resize as resizers
from tljax.transfer.manifest import REUSED, Entry, Manifest, reset_entry
from tljax.transfer.mismatch import KEY, Leaves, Pairing, Problem


class RuleList:
    """One of the four lists; it remembers which of its rules decided something.

    Args:
      name: of the list, below `config.transfer`.
      rules: expressions, or (expression, string) pairs.
      second: what the second of a pair is called; '' where rules are expressions only.
    """

    def __init__(self, name: str, rules: Iterable[Any], second: str = ''):
        self.where = f'{KEY}.{name}'
        if isinstance(rules, str) or not all(well_formed(rule, bool(second)) for rule in rules):
            form = f'(expression, {second}) pairs' if second else 'expressions'
            raise UserError(f'{self.where} must be a list of {form}, not {rules!r}.')
        self.rules = [tuple(rule) if second else (rule, '') for rule in rules]
        self.compiled = [trees.compile_rule(pattern, self.where) for pattern, _ in self.rules]
        self.alive: set[int] = set()

    def find(self, path: str) -> tuple[re.Match[str], str] | None:
        """The match and the value of the first rule that matches the path, now known alive."""
        for index, regex in enumerate(self.compiled):
            if found := regex.fullmatch(path):
                self.alive.add(index)
                return found, self.rules[index][1]
        return None

    def dead(self, pool: Iterable[str], left: Iterable[str], why: str) -> Iterator[Problem]:
        """What to say of each rule that decided nothing.

        Args:
          pool: all paths that the rules are compared with.
          left: those of them that the list had to decide about.
          why: the others were not left to it.
        """
        pool, left = list(pool), list(left)
        for index, regex in enumerate(self.compiled):
            if index not in self.alive:
                pattern = self.rules[index][0]
                args = (pattern, regex, pool, left, why, self.where)
                yield partial(mismatch.dead_rule, *args)


def well_formed(rule: Any, pair: bool) -> bool:
    """Whether it is a string, or a pair of strings."""
    if not pair:
        return isinstance(rule, str)
    return (
        isinstance(rule, list | tuple)
        and len(rule) == 2
        and all(isinstance(part, str) for part in rule)
    )


def plan(
    source: Leaves,
    target: Leaves,
    rename: Sequence[Any] = (),
    reset: Sequence[str] = (),
    resize: Sequence[Any] = (),
    unused: Sequence[str] = (),
    injected: Collection[str] = (),
) -> Manifest:
    """Decides what happens to every leaf; reads shapes and dtypes only.

    Args:
      source: path -> anything with `shape` and `dtype`.
      target: the same.
      rename: (expression, replacement) pairs; the replacement may use groups: r'backbone/\\1'.
      reset: expressions. The source leaf of a leaf that is reset counts as unused.
      resize: (expression, how) pairs; see `tljax.transfer.resize`.
      unused: expressions. Where several source leaves get one path, those it matches give way.
      injected: target leaves that were added to the architecture; they are fresh where the source
        has none of that path, and no rule is about them then.

    Raises:
      UserError: naming the leaves, shapes, config key and remedy, for up to 8 problems at once: a
        rule that is malformed or decides nothing, two source leaves for one target leaf, another
        shape or dtype, a target leaf without a source leaf, a source leaf that nothing reads.

    >>> import numpy as np
    >>> def leaf(*shape): return jax.ShapeDtypeStruct(shape, np.float32)
    >>> source = {'stem/kernel': leaf(3, 8), 'head/kernel': leaf(8, 10)}
    >>> target = {'backbone/kernel': leaf(3, 8), 'head/kernel': leaf(8, 2)}
    >>> manifest = plan(source, target, [('stem/(.*)', r'backbone/\\1')], ['head/.*'])
    >>> print(manifest.table())
    leaf             action   shape    dtype    from
    backbone/kernel  renamed  (3, 8)   float32  stem/kernel
    head/kernel      reset    (8, 2)   float32  fresh initialisation
    head/kernel      unused   (8, 10)  float32  source leaf of head/kernel, which is reset
    """
    renames = RuleList('rename', rename, 'replacement')
    resets = RuleList('reset', reset)
    resizes = RuleList('resize', resize, 'how')
    spares = RuleList('unused', unused)
    check_hows(resizes)
    new = {path for path in injected if path not in source}
    whole, target = target, {path: leaf for path, leaf in target.items() if path not in new}
    pairing = pair(source, target, renames, resets, spares)
    hows = {path: found[1] for path in open_to(pairing, target) if (found := resizes.find(path))}
    entries, misfits = [], []
    for path in whole:
        if path in new:
            entries.append(reset_entry(path, whole[path], 'injected'))
        elif path in pairing.fresh:
            entries.append(reset_entry(path, target[path]))
        elif path in pairing.taken:
            goes = (path, pairing.taken[path], source, target, hows.get(path, ''))
            try:
                entries.append(reused_entry(*goes))
            except ValueError as error:
                misfits.append(partial(mismatch.misfit, *goes, str(error)))
    left = [*pairing.unused, *pairing.unread]
    problems: list[Problem] = [
        *renames.dead(source, source, ''),
        *resets.dead(target, target, ''),
        *resizes.dead(target, open_to(pairing, target), f'{KEY}.reset resets them'),
        *spares.dead(source, left, 'they are read'),
        *(partial(mismatch.clash, path, paths) for path, paths in pairing.clashes.items()),
        *misfits,
        *(partial(mismatch.missing, p, source, target, pairing) for p in pairing.missing),
        *(partial(mismatch.unread, p, source, target, pairing) for p in pairing.unread),
    ]
    mismatch.refuse('The source does not fit the target', problems)
    return Manifest(
        (*entries, *(unused_entry(p, source[p], pairing) for p in source if p in pairing.unused))
    )


def pair(
    source: Leaves, target: Leaves, renames: RuleList, resets: RuleList, spares: RuleList
) -> Pairing:
    """Brings the paths together."""
    goals = {path: renamed(path, renames) for path in source}
    fresh = {path for path in target if resets.find(path)}
    claims: dict[str, list[str]] = {}
    for path, goal in goals.items():
        claims.setdefault(goal, []).append(path)
    pairing = Pairing(goals, {}, fresh, {}, [], [], {})
    for goal, paths in claims.items():
        if goal in target and goal not in fresh:
            # An expression in `unused` decides between several only; it takes nothing from a
            # target leaf that has just this one.
            wanted = paths if len(paths) == 1 else [p for p in paths if not spares.find(p)]
            if len(wanted) != 1:
                pairing.clashes[goal] = paths
                continue
            pairing.taken[goal] = wanted[0]
            paths = [path for path in paths if path != wanted[0]]
        for path in paths:
            allowed = spares.find(path)
            if goal in fresh:
                pairing.unused[path] = f'source leaf of {goal}, which is reset'
            elif allowed:
                pairing.unused[path] = f'allowed by {allowed[0].re.pattern!r}'
            else:
                pairing.unread.append(path)
    pairing.missing.extend(
        p for p in target if p not in fresh and p not in pairing.taken and p not in pairing.clashes
    )
    return pairing


def renamed(path: str, renames: RuleList) -> str:
    """The source leaf's path after renaming.

    Raises:
      UserError: the replacement names a group that its expression has not.
    """
    found = renames.find(path)
    if found is None:
        return path
    match, replacement = found
    try:
        return match.expand(replacement)
    except (re.error, IndexError) as error:
        raise UserError(
            f'{renames.where}: the replacement {replacement!r} of {match.re.pattern!r} cannot be '
            f'filled in for the leaf {path!r}: {error}.'
        ) from None


def check_hows(resizes: RuleList) -> None:
    """Refuses ways to resize that nobody knows."""
    for pattern, how in resizes.rules:
        if how not in resizers.RESIZERS:
            raise UserError(
                f'{resizes.where}: the rule {pattern!r} asks for {how!r}.'
                f'{nearest(how, resizers.RESIZERS)}'
            )


def open_to(pairing: Pairing, target: Leaves) -> list[str]:
    """The target leaves that a resize rule can decide about."""
    return [path for path in target if path not in pairing.fresh]


def unused_entry(path: str, leaf: Any, pairing: Pairing) -> Entry:
    shape = tuple(leaf.shape)
    return Entry('', 'unused', path, shape, shape, str(leaf.dtype), pairing.unused[path])


def reused_entry(path: str, source_path: str, source: Leaves, target: Leaves, how: str) -> Entry:
    """The entry of a target leaf that a source leaf goes to.

    Raises:
      ValueError: it does not fit; says why if there is more to say than the shapes and dtypes do.
    """
    old, new = source[source_path], target[path]
    shapes, dtype = (tuple(old.shape), tuple(new.shape)), str(new.dtype)
    if str(old.dtype) != dtype:
        raise ValueError
    if shapes[0] == shapes[1]:
        action = 'loaded' if path == source_path else 'renamed'
        return Entry(path, action, source_path, shapes[1], shapes[0], dtype)
    if not how:
        raise ValueError
    if not jax.numpy.issubdtype(new.dtype, jax.numpy.floating):
        raise ValueError(f'{dtype} is no floating point type')
    note = resizers.describe(how, *shapes)
    return Entry(path, 'resized', source_path, shapes[1], shapes[0], dtype, note, how)


def apply(manifest: Manifest, source: Leaves, target: Leaves) -> dict[str, Any]:
    """Carries a plan out.

    Args:
      manifest: of `plan`.
      source: path -> array, for every leaf that the manifest reuses; others may be left out.
      target: path -> array, freshly initialised; shapes do where reset leaves are made later.

    Returns:
      The target's paths, in its order, each with the source's array (the very same one unless it
      is resized) or, where the manifest says reset, with what `target` holds.

    Raises:
      UserError: the leaves are not those that the manifest was made for, or a source leaf holds
        a shape and no values.

    >>> import numpy as np
    >>> source = {'head/bias': np.ones(2, np.float32)}
    >>> target = {'head/bias': np.zeros(2, np.float32)}
    >>> apply(plan(source, target), source, target)
    {'head/bias': array([1., 1.], dtype=float32)}
    """
    planned = {entry.path: entry for entry in manifest.entries if entry.action != 'unused'}
    problems: list[Problem] = [
        partial(mismatch.unplanned, p, target[p]) for p in target if p not in planned
    ]
    for path, entry in planned.items():
        wanted: list[tuple[Any, ...]] = [('target', path, target.get(path), entry.shape)]
        if entry.action in REUSED:
            old = source.get(entry.source_path)
            wanted.append(('source', entry.source_path, old, entry.source_shape))
        for side, name, leaf, shape in wanted:
            if leaf is None or (tuple(leaf.shape), str(leaf.dtype)) != (shape, entry.dtype):
                problems.append(partial(mismatch.changed, side, name, leaf, shape, entry.dtype))
            elif side == 'source' and isinstance(leaf, jax.ShapeDtypeStruct):
                problems.append(partial(mismatch.empty, name))
    mismatch.refuse('The leaves are not those that the manifest was made for', problems)
    return {path: value(planned[path], source, target) for path in target}


def value(entry: Entry, source: Leaves, target: Leaves) -> Any:
    """What a target leaf gets."""
    if entry.action in ('reset', 'injected'):
        return target[entry.path]
    leaf = source[entry.source_path]
    return resizers.resize(entry.how, leaf, entry.shape) if entry.action == 'resized' else leaf
