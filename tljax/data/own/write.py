"""Writes a set of the user's through TFDS, with its account and which row is in which split."""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from tljax.data.own.account import Account
from tljax.data.own.rows import Ready
from tljax.progress import Progress

VERSION = 2  # of everything that decides what a prepared set holds
HOUR = 3600.0
MONTH = 30 * 24 * HOUR
SHARD = 2000  # examples a file: few, since reading one of a large file at random is slow


def written(
    config: Any,
    base: Path,
    ready: Ready,
    splits: Mapping[str, list[int]],
    names: Sequence[str],
    told: Account,
) -> Path:
    """Writes the set, `splits.tsv` and `account.json`; returns its folder."""
    import tensorflow_datasets as tfds

    from tljax.data.builders import own

    number = {name: label for label, name in enumerate(names)}
    quiet = logging.get_verbosity() < logging.INFO
    total = sum(map(len, splits.values()))
    progress = Progress(total, 'rows', quiet=quiet, label='writing')

    def shard(rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in rows:
            row = ready.rows[index]
            label = {'label': number[row.label]} if ready.labelled else {}
            yield index, {**ready.example(index), **label, 'where': row.where}
            progress.update(1)

    lines = [
        '\t'.join(' '.join(value.split()) for value in (split, r.where, r.label, r.group))
        for split, rows in splits.items()
        for r in map(ready.rows.__getitem__, rows)
    ]
    identity = hashlib.sha256(
        json.dumps([VERSION, config.name, config.bits, ready.rate, *lines]).encode()
    )
    for rows in splits.values():
        identity.update(''.join(ready.digests[i] for i in rows).encode())
    said = {key: value for key, value in told.to_json().items() if key != 'where'}
    identity.update(json.dumps(said, sort_keys=True).encode())
    readable = re.sub(r'\W+', '_', Path(config.dir).resolve().name).strip('_')[:40] or 'data'
    label_feature = {'label': tfds.features.ClassLabel(names=list(names))} if ready.labelled else {}
    content = own.Content(
        name=f'{readable}-{identity.hexdigest()[:12]}',
        description=f'Data of the user: {told.where}, {told.rows} rows.',
        features={**ready.features, **label_feature, 'where': tfds.features.Text()},
        shards={
            split: [functools.partial(shard, part) for part in _parts(rows)]
            for split, rows in splits.items()
        },
    )
    kinds = {'folder': own.Folder, 'table': own.Table, 'arrays': own.Arrays}
    cls = kinds.get(config.name, own.Renamed)
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of a config that its class doesn't list
    try:
        builder = cls(data_dir=str(base), config=content, file_format='array_record')
    finally:
        logging.set_verbosity(before)
    path = Path(builder.data_path)
    if not (path / 'dataset_info.json').exists():
        logging.info('Preparing %s in %s, once.', told.where, path)
        sweep(path.parent, 'incomplete.*', HOUR)
        with progress:
            _run(builder)
    write_text(path / 'splits.tsv', '\n'.join(lines) + '\n')
    write_text(path / 'account.json', json.dumps(told.to_json(), indent=1))
    return path


def sweep(folder: Path, pattern: str, seconds: float) -> None:
    """Deletes what killed processes left in a folder and nobody has touched for so long."""
    for left in folder.glob(pattern):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (left, *left.rglob('*')))
            if time.time() - newest > seconds:
                shutil.rmtree(left)


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


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)
