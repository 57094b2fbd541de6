"""How many of the target's classes a source knows already."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tljax.study.compatibility.about import About
from tljax.study.compatibility.finding import Finding

SHOWN = 6  # names in a sentence


class Overlap(NamedTuple):
    """The target's classes beside a source's.

    Attributes:
      exact: target names that the source has letter for letter.
      loose: (target name, source name) that are the same but for case, plural and punctuation.
      missing: target names that it does not have.
    """

    exact: tuple[str, ...]
    loose: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the target's classes, how many the source has."""
        covered = len(self.exact) + len(self.loose)
        return covered / max(covered + len(self.missing), 1)


def overlap(source: Sequence[str], target: Sequence[str]) -> Overlap:
    """Which of the target's classes a source has.

    >>> overlap(['tabby', 'Persian cat', 'bus'], ['Buses', 'persian_cats', 'tabby', 'Sphynx'])
    Overlap(exact=('tabby',), loose=(('Buses', 'bus'), ('persian_cats', 'Persian cat')),
            missing=('Sphynx',))
    """
    known = set(source)
    plain: dict[str, str] = {}
    for name in source:
        plain.setdefault(key(name), name)
    exact = tuple(name for name in target if name in known)
    rest = [name for name in target if name not in known]
    loose = tuple((name, plain[key(name)]) for name in rest if key(name) in plain)
    return Overlap(exact, loose, tuple(name for name in rest if key(name) not in plain))


def key(name: str) -> str:
    """A class name without case, punctuation and the plural of its last word.

    >>> key('Persian_Cats'), key('buses'), key('Puppies')
    ('persian cat', 'bus', 'puppy')
    """
    words = re.findall(r'\w+', name.casefold().replace('_', ' '))
    return ' '.join([*words[:-1], *(singular(word) for word in words[-1:])])


def singular(word: str) -> str:
    """What a noun and its plural have in common, in English: not always the singular.

    >>> [singular(word) for word in ('bus', 'buses', 'horse', 'horses', 'glass')]
    ['bus', 'bus', 'hor', 'hor', 'glass']
    """
    if len(word) > 4 and re.search(r'ies?$', word):
        return re.sub(r'ies?$', 'y', word)
    if len(word) > 3:
        word = re.sub(r'(?<=[sxz])es?$|(?<=[cs]h)es?$', '', word)
    if len(word) > 3 and word.endswith('s') and not word.endswith('ss'):
        return word[:-1]
    return word


def findings(about: About, names: Sequence[str], head_is_reused: bool) -> list[Finding]:
    """The overlap, and whether a reused head says what it says.

    Args:
      about: the source.
      names: of the target's classes, in their order.
      head_is_reused: whether any of the head's parameters come from the source.
    """
    found = []
    if head_is_reused and about.label_names and about.label_names != tuple(names):
        pairs = enumerate(zip(about.label_names, names, strict=False))
        at = [(i, a, b) for i, (a, b) in pairs if key(a) != key(b)][:1]
        if at:
            found.append(
                Finding(
                    'warning',
                    'labels',
                    f'The head of {about.name} is reused, but its class {at[0][0]} is '
                    f'{at[0][1]!r} and that of the data is {at[0][2]!r}.',
                    'It starts with answers that are wrong, which costs more than a fresh head.',
                    "Set config.transfer.reset=('head/.*',), or order config.data.classes alike.",
                )
            )
    if not about.label_names:
        if about.classes:
            what = f'The {about.classes} classes of {about.name} are not listed in its card.'
            why = 'Whether it knows classes of the target already cannot be told.'
            found.append(Finding('note', 'labels', what, why, ''))
        return found
    both = overlap(about.label_names, names)
    named = [*both.exact, *(f'{a} ({b})' for a, b in both.loose)]
    what = (
        f'{about.name} knows {len(named)} of the {len(names)} classes of the target'
        f'{": " + some(named) if named else ""}.'
    )
    if both.missing:
        what += f' New to it: {some(both.missing)}.'
    return [*found, Finding('note', 'labels', what, '', '')]


def some(names: Sequence[str]) -> str:
    """The first few names.

    >>> some(list('abcdefgh'))
    'a, b, c, d, e, f and 2 more'
    """
    more = len(names) - SHOWN
    return ', '.join(names[:SHOWN]) + (f' and {more} more' if more > 0 else '')
