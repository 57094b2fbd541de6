"""Builds a set of the user's: what can be used, which split it is in, written and accounted for."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax.data.own import account, division, write
from tljax.data.own.account import Account
from tljax.data.own.rows import Ready
from tljax.errors import UserError

MOST_CLASSES = 0.5  # of the rows: a label with more different values is no class


def build(config: Any, base: Path, ready: Ready) -> Path:
    """Builds a set and returns its folder.

    Args:
      config: the section `config.data`.
      base: where prepared sets lie.
      ready: what it is made of.

    Raises:
      UserError: bad rows that are refused, too few rows or classes.
    """
    bad = dict(enumerate(ready.bad))
    bad.update(repeated(ready, bad))
    kept = [index for index in range(len(ready.rows)) if not bad[index]]
    total = len(ready.rows) + len(ready.never)
    account.check_bad(_listed(ready, bad), total, config.dir, config.on_error)
    splits, notes = divided(config, ready, kept)
    names = class_names([ready.rows[index].label for index in splits['train']])
    for index in kept:
        if ready.labelled and ready.rows[index].label not in names:
            label = ready.rows[index].label
            bad[index] = f'its label is not among those of training: {label!r}'
    listed = _listed(ready, bad)
    account.check_bad(listed, total, config.dir, config.on_error)
    splits = {split: [i for i in rows if not bad[i]] for split, rows in splits.items()}
    if ready.labelled:
        check_classes(config, names, len(splits['train']))
    if empty := [split for split, rows in splits.items() if not rows]:
        raise UserError(
            f'config.data.dir={config.dir}: no rows of {", ".join(empty)} are left:\n'
            f'{account.told(listed)}'
        )
    counts = {
        split: dict.fromkeys(names, 0) | Counter(ready.rows[i].label for i in rows)
        for split, rows in splits.items()
    }
    said = [*ready.notes, *notes, *missing_classes(counts)]
    told = Account(config.dir, total, listed, counts, ready.ignored, said, ready.rate)
    return write.written(config, base, ready, splits, names, told)


def _listed(ready: Ready, bad: Mapping[int, str]) -> list[tuple[str, str]]:
    return [*ready.never, *((ready.rows[i].where, why) for i, why in bad.items() if why)]


def check_classes(config: Any, names: Sequence[str], rows: int) -> None:
    """Raises UserError unless the labels are classes."""
    if len(names) < 2:
        raise UserError(
            f'config.data.dir={config.dir}: {len(names)} class(es) are left ({", ".join(names)}); '
            'two are the least.'
        )
    if rows > 20 and len(names) > MOST_CLASSES * rows:
        raise UserError(
            f'config.data.dir={config.dir}: {rows} training rows have {len(names)} different '
            f'labels, such as {", ".join(names[:3])}: these are no classes. Is config.data.label '
            'another column?'
        )


def repeated(ready: Ready, bad: Mapping[int, str]) -> dict[int, str]:
    """Rows whose content was seen before, and why each is left out.

    Of equal rows with one label one is kept: that in test, else in validation, else the first.
    Where the labels differ none is.
    """
    seen: dict[str, list[int]] = {}
    for index, digest in enumerate(ready.digests):
        if not bad[index] and digest:
            seen.setdefault(digest, []).append(index)
    order = {'test': 0, 'validation': 1}
    found = {}
    for indices in seen.values():
        if len(indices) == 1:
            continue
        best = min(indices, key=lambda i: (order.get(ready.rows[i].split, 2), i))
        labels = {ready.rows[index].label for index in indices}
        for index in indices:
            other = ready.rows[best if index != best else indices[indices[0] == best]]
            if len(labels) > 1:
                found[index] = f'the same under another label: {other.where} ({other.label})'
            elif index != best:
                found[index] = f'the same as: {other.where}'
    return found


def class_names(labels: Sequence[str]) -> list[str]:
    """The classes in order: numbers by value, else by name.

    >>> class_names(['10', '9', '10']), class_names(['dog', 'cat'])
    (['9', '10'], ['cat', 'dog'])
    """
    found = set(labels)
    if all(re.fullmatch(r'-?\d+', label) for label in found):
        return sorted(found, key=lambda label: (int(label), label))
    return sorted(found)


def divided(
    config: Any, ready: Ready, kept: Sequence[int]
) -> tuple[dict[str, list[int]], list[str]]:
    """Split -> its rows; test is drawn where the user has none, and what was done is told.

    With groups validation is drawn here too, so that no group is in two splits.

    Raises:
      UserError: a split would be empty, or a group is in two of the user's own splits.
    """
    rows = ready.rows
    number = {name: n for n, name in enumerate(sorted({rows[i].label for i in kept}))}
    splits: dict[str, list[int]] = {}
    for index in kept:
        splits.setdefault(rows[index].split or 'train', []).append(index)
    if 'train' not in splits:
        raise UserError(f'config.data.dir={config.dir}: no rows are left to train on.')
    notes = shared_groups(ready, splits)
    wanted = [] if 'test' in splits else [('test', config.test_share)]
    if config.group and 'validation' not in splits and config.holdout:
        wanted.append(('validation', config.holdout))
    for split, amount in wanted:
        pool = splits['train']
        share = amount if amount < 1 else amount / len(pool)
        labels = np.array([number[rows[index].label] for index in pool])
        groups = [rows[index].group for index in pool]
        drawn = division.draw(labels, groups, share, config.split_seed, split)
        splits[split] = [pool[row] for row in drawn]
        if ready.labelled and len(set(labels[drawn])) < 2 <= len(set(labels)):
            raise UserError(one_class(config, split, len(drawn)))
        chosen = set(splits[split])
        splits['train'] = [index for index in pool if index not in chosen]
        each = ', each class in proportion' if ready.labelled else ''
        by = f', no group ({config.group}) in two splits' if config.group else ''
        notes.append(
            f'there is no {split} split, so {len(drawn)} of {len(pool)} rows were drawn for it'
            f'{each}{by} (data.split_seed={config.split_seed}).'
        )
    return {n: splits[n] for n in ('train', 'validation', 'test') if n in splits}, notes


def one_class(config: Any, split: str, drawn: int) -> str:
    """The message for a split that was drawn and would show nothing."""
    if config.group:
        return (
            f'config.data.group={config.group!r}: the {split} rows would all be of one class, '
            'since the groups are too few or too large. Leave the key out, or make the splits '
            'yourself.'
        )
    return (
        f'config.data.test_share={config.test_share:g}: the {drawn} {split} rows, drawn in '
        'proportion, would all be of one class, since the others have too few rows. Raise it, or '
        'make the splits yourself.'
    )


def missing_classes(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Notes on splits in which a class has no rows."""
    notes = []
    for split, of in counts.items():
        names = [name for name, count in of.items() if not count]
        shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
        notes += [f'{split} has no rows of {len(names)} classes: {shown}.'] if names else []
    return notes


def shared_groups(ready: Ready, splits: Mapping[str, Sequence[int]]) -> list[str]:
    """Notes on groups that are in two of the user's own splits."""
    held = {s: {ready.rows[i].group for i in rows} - {''} for s, rows in splits.items()}
    shared = sorted(held['train'] & (held.get('test', set()) | held.get('validation', set())))
    if not shared:
        return []
    shown = ', '.join(shared[:5]) + (', ...' if len(shared) > 5 else '')
    return [
        f'{len(shared)} groups are in train and in test or validation, as the splits came '
        f'({shown}): what is learnt of a group helps there.'
    ]
