"""Which rows belong to which split: TFDS split strings made absolute, and stratified draws."""

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.errors import UserError, nearest

Interval = tuple[str, int, int]  # base split, first row, row after the last


def intervals(spec: str, key: str, infos: Mapping[str, Any]) -> list[Interval]:
    """The rows that a TFDS split string selects.

    Args:
      spec: for example 'train[:10%]+test[100:200]'.
      key: the config key it stands in, for error messages.
      infos: `builder.info.splits`: base split to an object with `num_examples`.

    Returns:
      (base split, first row, row after the last), in the order of reading.

    Raises:
      UserError: it can't be read, names an unknown split, selects nothing, or selects the same
        row twice.
    """
    import tensorflow_datasets as tfds

    sizes = ', '.join(f'{name} ({info.num_examples})' for name, info in infos.items())
    for part in spec.split('+'):
        name = re.match(r'\s*([\w-]*)', part).group(1)  # type: ignore[union-attr]
        if name not in infos and name != 'all':
            raise UserError(
                f'config.{key}={spec!r}: there is no split {name!r}.{nearest(name, infos)} '
                f'The set has {sizes}.'
            )
    try:
        absolute = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except ValueError as error:
        raise UserError(
            f"config.{key}={spec!r} is no TFDS split string, such as 'train[:10%]' or "
            f"'train[100:]+test': {_first_line(error)} The set has {sizes}."
        ) from None
    found = []
    for part in absolute:
        first = part.from_ or 0
        last = infos[part.splitname].num_examples if part.to is None else part.to
        if last <= first:
            raise UserError(f'config.{key}={spec!r} selects no examples. The set has {sizes}.')
        found.append((part.splitname, first, last))
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            if shared := _shared(one, other):
                raise UserError(f'config.{key}={spec!r} selects {shared} more than once.')
    return found


def check_disjoint(chosen: Mapping[str, tuple[str, Sequence[Interval]]]) -> None:
    """Checks that no row is in two of the splits.

    Args:
      chosen: config key to (split string, its intervals).

    Raises:
      UserError: names both keys and the rows that they share.
    """
    keys = list(chosen)
    for i, key in enumerate(keys):
        for other in keys[i + 1 :]:
            for a in chosen[key][1]:
                for b in chosen[other][1]:
                    if shared := _shared(a, b):
                        raise UserError(
                            f'config.{key}={chosen[key][0]!r} and config.{other}='
                            f'{chosen[other][0]!r} share {shared}. Training, validation and test '
                            "must not overlap: cut one of them, as in 'train[:80%]' and "
                            "'train[80%:]'."
                        )


def _shared(a: Interval, b: Interval) -> str:
    first, last = max(a[1], b[1]), min(a[2], b[2])
    if a[0] != b[0] or last <= first:
        return ''
    return f'{last - first} examples ({a[0]}[{first}:{last}])'


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip('.') + '.'


def random_keys(n: int, seed: int, *purpose: str | int) -> np.ndarray:
    """One random 64-bit number for each of n rows; sorting by them is a shuffle.

    Raw bits, since numpy keeps those (but not its permutations) equal in every version. Each
    purpose ('holdout', 'shots', ...) has numbers of its own.

    >>> random_keys(2, 0, 'shots').tolist() == random_keys(2, 0, 'holdout').tolist()
    False
    """
    words = [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in purpose]
    sequence = np.random.SeedSequence([int(seed) % 2**64, *words])
    return np.random.PCG64(sequence).random_raw(n)


def draw_holdout(labels: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """Draws validation examples, each class in proportion (largest remainder).

    Args:
      labels: (n,) int32.
      holdout: a share when below 1, else a number of examples.
      seed: of the draw.

    Returns:
      Positions in `labels`, ascending, int64.

    Raises:
      UserError: nothing would be left for training, or there is less than one example.
    """
    n = len(labels)
    if holdout >= 1 and holdout != round(holdout):
        raise UserError(
            f'config.data.holdout is {holdout}: below 1 it is a share of the training examples, '
            'from 1 on a number of them, which must be whole.'
        )
    total = round(holdout * n) if holdout < 1 else round(holdout)
    if not 0 < total < n:
        raise UserError(
            f'config.data.holdout={holdout:g} takes {total} of {n} training examples for '
            'validation; between 1 and one less than all are possible. '
            'Change it, or name a validation split in config.data.validation.'
        )
    classes, counts = np.unique(labels, return_counts=True)
    quota = counts * (total / n)
    takes = np.floor(quota).astype(np.int64)
    # Ties go to the class that comes first; a class's last example stays for training, if it can.
    order = np.lexsort((takes - quota, takes + 1 >= counts))
    takes[order[: total - takes.sum()]] += 1
    keys = random_keys(n, seed, 'holdout')
    return _smallest(labels, keys, dict(zip(classes.tolist(), takes.tolist(), strict=True)))


def draw_shots(labels: np.ndarray, shots: int, seed: int, names: Sequence[str]) -> np.ndarray:
    """Draws `shots` examples of each class; with one seed, a smaller draw is part of a larger.

    Args:
      labels: (n,) int32.
      shots: how many a class; 0 takes all.
      seed: of the draw.
      names: of the classes.

    Returns:
      Positions in `labels`, ascending, int32.

    Raises:
      UserError: a class has fewer.

    >>> draw_shots(np.array([0, 1, 0, 1]), 2, 0, ['cat', 'dog'])
    array([0, 1, 2, 3], dtype=int32)
    """
    if shots == 0:
        return np.arange(len(labels), dtype=np.int32)
    counts = np.bincount(labels, minlength=len(names))
    few = [f'{names[c]} ({counts[c]})' for c in range(len(names)) if counts[c] < shots]
    if few:
        raise UserError(
            f'config.data.shots={shots}, but after the validation examples are set aside these '
            f'classes have fewer training examples: {", ".join(few[:8])}'
            f'{"" if len(few) <= 8 else f" and {len(few) - 8} more"}. Lower data.shots or '
            'data.holdout.'
        )
    keys = random_keys(len(labels), seed, 'shots')
    return _smallest(labels, keys, dict.fromkeys(range(len(names)), shots)).astype(np.int32)


def _smallest(labels: np.ndarray, keys: np.ndarray, takes: Mapping[int, int]) -> np.ndarray:
    """Positions of the rows with each class's `takes[class]` smallest keys, ascending."""
    chosen = []
    for label, take in takes.items():
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[np.argsort(keys[rows], kind='stable')[:take]])
    return np.sort(np.concatenate(chosen))
