"""Prepares the user's data as a TFDS set, once: examined, divided, written, accounted for."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tljax.data.own import account, division
from tljax.data.own.account import Account
from tljax.data.own.rows import Row
from tljax.errors import RunError, UserError

VERSION = 1  # of everything here that decides what a prepared set holds
SHARD = 2000  # examples a file: few, since reading one of a large file at random is slow
FILES = ('account.json', 'splits.tsv')
OPTIONS = ('group', 'holdout', 'split_seed', 'test_share', 'on_error', 'bits')


@dataclasses.dataclass(frozen=True)
class Ready:
    """Rows that were examined, and how their examples are made.

    Attributes:
      rows: all of them.
      bad: why a row cannot be used; '' if it can.
      digests: of the rows' content: equal where the content is.
      features: of an example, but for 'label' and 'where'.
      example: row number -> those features' values.
    """

    rows: Sequence[Row]
    bad: Sequence[str]
    digests: Sequence[str]
    features: Mapping[str, Any]
    example: Callable[[int], dict[str, Any]]
    notes: Sequence[str] = ()


def home(config: Any) -> Path:
    """Where prepared sets of the user's lie: `config.data.prepared`, or a cache folder."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(config.prepared or cache / 'tljax' / 'prepared').expanduser()


def stamp_of(config: Any, rows: Sequence[Row], more: Sequence[Any] = ()) -> str:
    """Tells whether anything changed since a set was prepared: names, sizes, times, options."""
    digest = hashlib.sha256(json.dumps([VERSION, config.name, *more]).encode())
    digest.update(json.dumps({key: config[key] for key in OPTIONS}, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps(dataclasses.astuple(row)).encode())
    return digest.hexdigest()[:32]


def prepare(
    config: Any,
    stamp: str,
    ready: Callable[[Path], Ready],
    listed_bad: Sequence[tuple[str, str]] = (),
    ignored: Mapping[str, int] | None = None,
) -> Any:
    """The TFDS builder of a set of the user's, which is prepared unless it was before.

    Args:
      config: the section `config.data`.
      stamp: of `stamp_of`.
      ready: examines the rows; it is given a folder for what is kept if it is interrupted.
      listed_bad: rows that were bad before any was opened.
      ignored: other files, by suffix.

    Raises:
      UserError: nothing usable, bad rows that are refused, a folder that cannot be written.
      RunError: no space left.
    """
    base = home(config)
    pointer = base / 'known' / f'{stamp}.json'
    try:
        if (built := _known(base, pointer)) is None:
            kept = base / 'unfinished' / stamp
            kept.mkdir(parents=True, exist_ok=True)
            built = _build(config, base, ready(kept), listed_bad, ignored or {})
            _write(pointer, json.dumps({'path': str(built.relative_to(base))}))
            shutil.rmtree(kept, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f'No space is left in {base} to prepare {config.dir}.') from None
        raise UserError(
            f'config.data.prepared: {config.dir} cannot be prepared in {base}: '
            f'{error.strerror or error}. Set data.prepared to a folder that can be written.'
        ) from None
    _tell(built)
    return _opened(built)


def _known(base: Path, pointer: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        path = base / json.loads(pointer.read_text(encoding='utf-8'))['path']
        return path if (path / 'dataset_info.json').exists() else None
    return None


def _opened(path: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(path))
    except Exception as error:
        raise RunError(f'{path} is damaged: {error}. Delete it and start again.') from error


def _tell(path: Path) -> None:
    told = json.loads((path / FILES[0]).read_text(encoding='utf-8'))
    bad = told['bad']
    if bad['count']:
        why = ', '.join(f'{reason} ({count})' for reason, count in bad['reasons'].items())
        logging.warning(
            '%s: %d of %d rows are left out: %s. They are listed in %s.',
            *(told['where'], bad['count'], told['rows'], why, path / FILES[0]),
        )
    for note in told['notes']:
        logging.info('%s: %s', told['where'], note)


def _build(
    config: Any,
    base: Path,
    ready: Ready,
    listed_bad: Sequence[tuple[str, str]],
    ignored: Mapping[str, int],
) -> Path:
    where = config.dir
    total = len(ready.rows) + len(listed_bad)
    bad = dict(enumerate(ready.bad))
    bad.update(repeated(ready, bad))
    kept = [index for index in range(len(ready.rows)) if not bad[index]]
    names = class_names([ready.rows[i].label for i in kept if ready.rows[i].split in ('', 'train')])
    for index in kept:
        if ready.rows[index].label not in names:
            label = ready.rows[index].label
            bad[index] = f'its label is not among those of training: {label!r}'
    listed = [*listed_bad, *((ready.rows[i].where, why) for i, why in bad.items() if why)]
    account.check_bad(listed, total, where, config.on_error)
    kept = [index for index in kept if not bad[index]]
    if len(names) < 2:
        raise UserError(
            f'config.data.dir={where}: {len(names)} class(es) are left ({", ".join(names)}); two '
            'are the least.'
        )
    splits, notes = divided(config, ready.rows, kept, names)
    counts = {
        split: dict.fromkeys(names, 0) | Counter(ready.rows[i].label for i in rows)
        for split, rows in splits.items()
    }
    told = Account(where, total, listed, counts, ignored, [*ready.notes, *notes])
    return _written(config, base, ready, splits, names, told)


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
    config: Any, rows: Sequence[Row], kept: Sequence[int], names: Sequence[str]
) -> tuple[dict[str, list[int]], list[str]]:
    """Split -> its rows; test is drawn where the user has none, and what was done is told.

    With groups validation is drawn here too, so that no group is in two splits.
    """
    number = {name: label for label, name in enumerate(names)}
    splits: dict[str, list[int]] = {}
    for index in kept:
        splits.setdefault(rows[index].split or 'train', []).append(index)
    notes = []
    wanted = [] if 'test' in splits else [('test', config.test_share)]
    if config.group and 'validation' not in splits and 0 < config.holdout < 1:
        wanted.append(('validation', config.holdout))
    for split, share in wanted:
        pool = splits['train']
        labels = np.array([number[rows[index].label] for index in pool])
        groups = [rows[index].group for index in pool]
        drawn = division.draw(labels, groups, share, config.split_seed, split)
        splits[split] = [pool[row] for row in drawn]
        chosen = set(splits[split])
        splits['train'] = [index for index in pool if index not in chosen]
        by = f', no group ({config.group}) in two splits' if config.group else ''
        notes.append(
            f'there is no {split} split, so {len(drawn)} of {len(pool)} rows were drawn for it, '
            f'each class in proportion{by} (data.split_seed={config.split_seed}).'
        )
    return {n: splits[n] for n in ('train', 'validation', 'test') if n in splits}, notes


def _written(
    config: Any,
    base: Path,
    ready: Ready,
    splits: Mapping[str, list[int]],
    names: Sequence[str],
    told: Account,
) -> Path:
    import tensorflow_datasets as tfds

    from tljax.data.builders import own

    number = {name: label for label, name in enumerate(names)}

    def shard(rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in rows:
            row = ready.rows[index]
            yield (
                index,
                {
                    **ready.example(index),
                    'label': number[row.label],
                    'where': row.where,
                },
            )

    lines = [
        '\t'.join((split, ready.rows[i].where, ready.rows[i].label, ready.rows[i].group))
        for split, rows in splits.items()
        for i in rows
    ]
    identity = hashlib.sha256(json.dumps([VERSION, config.bits, *lines]).encode())
    for rows in splits.values():
        identity.update(''.join(ready.digests[i] for i in rows).encode())
    readable = re.sub(r'\W+', '_', Path(config.dir).resolve().name).strip('_')[:40] or 'data'
    content = own.Content(
        name=f'{readable}-{identity.hexdigest()[:12]}',
        description=f'Data of the user: {told.where}, {told.rows} rows.',
        features={
            **ready.features,
            'label': tfds.features.ClassLabel(names=list(names)),
            'where': tfds.features.Text(),
        },
        shards={
            split: [functools.partial(shard, part) for part in _parts(rows)]
            for split, rows in splits.items()
        },
    )
    cls = {'folder': own.Folder, 'table': own.Table, 'arrays': own.Arrays}[config.name]
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of a config that its class doesn't list
    try:
        builder = cls(data_dir=str(base), config=content, file_format='array_record')
    finally:
        logging.set_verbosity(before)
    path = Path(builder.data_path)
    if not (path / 'dataset_info.json').exists():
        logging.info('Preparing %s in %s, once.', told.where, path)
        _run(builder)
    _write(path / 'splits.tsv', '\n'.join(lines) + '\n')
    _write(path / 'account.json', json.dumps(told.to_json(), indent=1))
    return path


def _parts(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[first : first + SHARD] for first in range(0, len(rows), SHARD)]


def _run(builder: Any) -> None:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        # TFDS prints to stdout, which is for results.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except OSError:
        if not (Path(builder.data_path) / 'dataset_info.json').exists():
            raise  # else another process was faster
    finally:
        tfds.enable_progress_bar()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)
