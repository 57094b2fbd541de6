"""Finds a set of the user's that was prepared before, or has it prepared."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import logging

from tljax.data.own.build import build
from tljax.data.own.rows import Ready, Row
from tljax.data.own.write import MONTH, VERSION, sweep, write_text
from tljax.errors import RunError, UserError

OPTIONS = (
    *('bits', 'group', 'holdout', 'on_error', 'rate', 'split_seed', 'test_share'),
    *('audio', 'delimiter', 'encoding', 'image', 'label', 'split', 'text', 'text_b'),
)


def home(config: Any) -> Path:
    """Where prepared sets of the user's lie: `config.data.prepared`, or a cache folder."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(config.prepared or cache / 'tljax' / 'prepared').expanduser()


def stamp_of(config: Any, rows: Sequence[Row], more: Sequence[Any] = ()) -> str:
    """Tells whether anything changed since a set was prepared: names, sizes, times, options."""
    digest = hashlib.sha256(json.dumps([VERSION, config.name, *more]).encode())
    options = {key: config[key] for key in OPTIONS}
    if not config.group:
        options.pop('holdout')  # drawn when the set is opened
    digest.update(json.dumps(options, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps(dataclasses.astuple(row)).encode())
    return digest.hexdigest()[:32]


def prepare(
    config: Any,
    stamp: str,
    ready: Callable[[Path], Ready],
) -> Any:
    """The TFDS builder of a set of the user's, which is prepared unless it was before.

    Args:
      config: the section `config.data`.
      stamp: of `stamp_of`.
      ready: examines the rows; it is given a folder for what is kept if it is interrupted.

    Raises:
      UserError: nothing usable, bad rows that are refused, a folder that cannot be written.
      RunError: no space left.
    """
    base = home(config)
    pointer = base / 'known' / f'{stamp}.json'
    built = _known(base, pointer)
    if built is None:
        try:
            built = _prepared(config, base, stamp, ready)
            write_text(pointer, json.dumps({'path': str(built.relative_to(base))}))
            shutil.rmtree(base / 'unfinished' / stamp, ignore_errors=True)
        except (OSError, RunError) as error:
            built = _known(base, pointer)
            if built is None:  # else another process was faster, and tidied up
                _failed(config, base, error)
    _tell(built)
    return _opened(built)


def _prepared(config: Any, base: Path, stamp: str, ready: Callable[[Path], Ready]) -> Path:
    sweep(base / 'unfinished', '*', MONTH)
    kept = base / 'unfinished' / stamp
    kept.mkdir(parents=True, exist_ok=True)
    return build(config, base, ready(kept))


def _failed(config: Any, base: Path, error: Exception) -> NoReturn:
    if not isinstance(error, OSError):
        raise error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise RunError(f'No space is left in {base} to prepare {config.dir}.') from None
    raise UserError(
        f'config.data.prepared: {config.dir} cannot be prepared in {base}: '
        f'{error.strerror or error}. Set data.prepared to a folder that can be written.'
    ) from None


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
    told = json.loads((path / 'account.json').read_text(encoding='utf-8'))
    bad = told['bad']
    if bad['count']:
        why = ', '.join(f'{reason} ({count})' for reason, count in bad['reasons'].items())
        logging.warning(
            '%s: %d of %d rows are left out: %s. They are listed in %s.',
            *(told['where'], bad['count'], told['rows'], why, path / 'account.json'),
        )
    for note in told['notes']:
        logging.info('%s: %s', told['where'], note)
