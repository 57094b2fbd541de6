"""What surgery says when source and target do not fit: which leaf, what is wrong, what to do."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tljax import trees
from tljax.errors import UserError
from tljax.transfer import resize
from tljax.transfer.manifest import FRESH

KEY = 'config.transfer'
SHOWN = 8

# Written out only when shown: looking for near paths among thousands of leaves takes time.
Problem = Callable[[], str]
Leaves = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Which source leaf goes to which target leaf, shapes not yet looked at.

    Attributes:
      goals: source path -> path after renaming.
      taken: target path -> source path.
      fresh: target paths that are reset.
      unused: source path -> why it may stay unread.
      unread: source paths that nothing reads and no rule allows to stay so.
      missing: target paths that no source leaf goes to.
      clashes: target path -> the source paths that all go to it.
    """

    goals: dict[str, str]
    taken: dict[str, str]
    fresh: set[str]
    unused: dict[str, str]
    unread: list[str]
    missing: list[str]
    clashes: dict[str, list[str]]


def refuse(title: str, problems: Sequence[Problem]) -> None:
    """Raises a UserError that lists the first problems, if there are any."""
    if not problems:
        return
    lines = [f'- {problem()}' for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f'- and {len(problems) - SHOWN} more.')
    count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
    raise UserError('\n'.join([f'{title}: {count}.', *lines]))


def dead_rule(
    pattern: str,
    regex: re.Pattern[str],
    pool: Sequence[str],
    left: Sequence[str],
    why: str,
    where: str,
) -> str:
    """A rule that decides nothing; see `RuleList.dead`."""
    elsewhere = [path for path in pool if regex.fullmatch(path)]
    if elsewhere and not any(regex.fullmatch(path) for path in left):
        return (
            f'{where}: the rule {pattern!r} decides nothing about the leaves it matches, such as '
            f'{listed(elsewhere)}: {why}. Delete it.'
        )
    side = 'target' if where.endswith(('reset', 'resize')) else 'source'
    message = trees.dead_rule(pattern, regex, list(left if elsewhere else pool), where)
    return message if elsewhere else f'{message} It is compared with the paths of the {side}.'


def clash(path: str, paths: Sequence[str]) -> str:
    """Several source leaves for one target leaf."""
    return (
        f'{KEY}.rename: the source leaves {listed(paths)} all get the path {path!r}. Rename one '
        f'only, or add all but one to {KEY}.unused.'
    )


def misfit(
    path: str, source_path: str, source: Leaves, target: Leaves, how: str, reason: str
) -> str:
    """Another shape or dtype."""
    old, new = source[source_path], target[path]
    name = repr(path) if path == source_path else f'{path!r} (source leaf {source_path!r})'
    says = [f'{name}: the source has {form(old)}, the target needs {form(new)}.']
    kind = ''
    if str(old.dtype) != str(new.dtype):
        says.append(f'Nothing is converted on the way: save the source as {new.dtype}.')
    elif reason:
        says.append(f'{KEY}.resize cannot fit it as {how!r}: {reason}.')
    elif kind := resizable(path, old, new):
        says.append(f'To fit it, add {(escaped(path), kind)!r} to {KEY}.resize.')
    says.append(reset_remedy(path, target, other=bool(kind)))
    return ' '.join(says)


def missing(path: str, source: Leaves, target: Leaves, pairing: Pairing) -> str:
    """A target leaf that no source leaf goes to."""
    says = [f'{path!r}: the target needs {form(target[path])}, and no source leaf has this path.']
    same = [p for p in pairing.unread if alike(source[p], target[path])]
    if same:
        (close,) = closest(path, same, 1)
        says.append(f'If it is {close!r} there, add {rename_rule(close, path)} to {KEY}.rename.')
    elif near := closest(path, pairing.unread or source, 3):
        unread = 'unread ' if pairing.unread else ''
        says.append(f'Nearest {unread}source leaves: {with_forms(near, source)}.')
    says.append(reset_remedy(path, target, other=bool(same)))
    return ' '.join(says)


def unread(path: str, source: Leaves, target: Leaves, pairing: Pairing) -> str:
    """A source leaf that nothing reads."""
    goal = pairing.goals[path]
    renamed = '' if goal == path else f' {KEY}.rename makes it {goal!r}.'
    says = [f'{path!r}: the source has {form(source[path])}, and no target leaf reads it.{renamed}']
    same = [p for p in pairing.missing if alike(source[path], target[p])]
    if same:
        (close,) = closest(goal, same, 1)
        says.append(f'If it is {close!r} there, add {rename_rule(path, close)} to {KEY}.rename.')
    elif near := closest(goal, pairing.missing, 3):
        says.append(f'Target leaves without a source: {with_forms(near, target)}.')
    add = 'Or add' if same else 'Add'
    says.append(f'{add} {cover(path, source)!r} to {KEY}.unused to do without it.')
    return ' '.join(says)


def unplanned(path: str, leaf: Any) -> str:
    """A target leaf that a manifest does not know."""
    return f'{path!r}: the manifest has no entry for this target leaf, {form(leaf)}. Plan again.'


def changed(side: str, path: str, leaf: Any, shape: tuple[int, ...], dtype: str) -> str:
    """A leaf that is not as it was planned."""
    found = 'there is none' if leaf is None else f'it is {form(leaf)}'
    return f'{path!r}: the manifest needs {shape} {dtype} in the {side}, and {found}. Plan again.'


def empty(path: str) -> str:
    """A source leaf without values."""
    return f'{path!r}: the source holds a shape and no values. Read its arrays before this.'


def reset_remedy(path: str, target: Leaves, other: bool) -> str:
    """How to do without the source here, after another remedy or as the only one."""
    end = 'train a new head' if 'head' in path.split('/') else f'start from {FRESH}'
    return f'{"Or add" if other else "Add"} {cover(path, target)!r} to {KEY}.reset to {end}.'


def cover(path: str, paths: Iterable[str]) -> str:
    """An expression for a leaf and its siblings in one layer, or for the leaf alone.

    >>> cover('head/bias', ['head/bias', 'head/kernel'])
    'head/.*'
    >>> cover('vit/token', ['vit/token', 'vit/block0/kernel'])
    'vit/token'
    """
    folder, slash, _ = path.rpartition('/')
    inside = [p[len(folder) + 1 :] for p in paths if p.startswith(folder + slash)]
    if not slash or any('/' in name for name in inside):
        return escaped(path)
    return escaped(folder) + '/.*'


def resizable(path: str, old: Any, new: Any) -> str:
    """The way to resize that would fit this leaf, or ''."""
    kind = 'channels' if path.endswith('kernel') else 'position'
    try:
        resize.describe(kind, old.shape, new.shape)
    except ValueError:
        return ''
    return kind


def rename_rule(source_path: str, target_path: str) -> str:
    """The rule that maps one leaf to another, as it is written in a config."""
    return repr((escaped(source_path), target_path.replace('\\', r'\\')))


def escaped(path: str) -> str:
    """The expression for just this path.

    >>> escaped('block-1/kernel')
    'block-1/kernel'
    """
    return re.escape(path).replace(r'\-', '-')


def closest(path: str, paths: Iterable[str], count: int) -> list[str]:
    """The paths most like this one, best first."""
    return difflib.get_close_matches(path, list(paths), n=count, cutoff=0.0)


def alike(a: Any, b: Any) -> bool:
    return tuple(a.shape) == tuple(b.shape) and str(a.dtype) == str(b.dtype)


def form(leaf: Any) -> str:
    """Shape and dtype."""
    return f'{tuple(leaf.shape)} {leaf.dtype}'


def with_forms(paths: Iterable[str], leaves: Leaves) -> str:
    return ', '.join(f'{path!r} {form(leaves[path])}' for path in paths)


def listed(paths: Sequence[str]) -> str:
    """Up to four paths."""
    more = f' and {len(paths) - 4} more' if len(paths) > 4 else ''
    return ', '.join(map(repr, paths[:4])) + more
