"""The two ways in which a command fails, and how names are suggested."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user asked for can't be done: exit status 2, one message, no traceback.

    The message says what was wrong, where (config key, parameter path, file) and what to do.
    """


class RunError(Exception):
    """The run itself failed (non-finite loss, full disk): exit status 1, no traceback."""


class Interrupted(RunError):
    """The run was asked to stop, saved itself, and goes on when started again."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggests the known names most like `name`, as the end of an error message.

    >>> nearest('optim.lrr', ['optim.lr', 'train.steps'])
    " Did you mean 'optim.lr'?"
    >>> nearest('zebra', ['optim.lr', 'train.steps'])
    " Known: 'optim.lr', 'train.steps'."
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return ' Did you mean ' + ' or '.join(repr(c) for c in close) + '?'
    if not known:
        return ''
    shown = ', '.join(repr(k) for k in known[:8])
    return f' Known: {shown}' + ('.' if len(known) <= 8 else f', ... ({len(known)} in all).')
