"""Weights in several files, and the index that says which tensor is in which."""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tljax.errors import UserError
from tljax.pretrained.readers.weights import Weights, damaged, guarded

SHOWN = 8


def read_index(path: Path, read_one: Callable[[Path], Weights]) -> Weights:
    """Opens the shards that an index names.

    Args:
      path: of a file such as model.safetensors.index.json.
      read_one: opens one shard.

    Raises:
      UserError: a shard is missing or damaged, or the index and a shard disagree.
    """
    with guarded(path, 'its JSON'):
        index = json.loads(path.read_text(encoding='utf-8'))
        where = {str(name): str(shard) for name, shard in index['weight_map'].items()}
        metadata = dict(index.get('metadata') or {})
    if not where:
        raise damaged(path, 'it names no tensors')
    shards = {}
    for name in sorted(set(where.values())):
        shards[name] = read_one(shard_path(path, name))
    check_agreement(path, where, shards)
    formats = sorted({shard.format for shard in shards.values()})
    for shard in shards.values():
        metadata |= shard.metadata
    return Weights(
        {name: shards[shard].tensors[name] for name, shard in where.items()},
        formats[0],
        tuple(shard.files[0] for shard in shards.values()),
        metadata=metadata,
    )


def shard_path(index: Path, name: str) -> Path:
    """Where a shard lies: beside its index.

    Raises:
      UserError: it is missing, or the index points out of its own directory.
    """
    parts = PurePosixPath(name).parts
    if not parts or '..' in parts or '\\' in name or ':' in name or name.startswith('/'):
        raise UserError(
            f'{index} names a shard outside its own directory ({name!r}): it is not read. '
            'Fetch it again from a place that you trust.'
        )
    path = index.parent.joinpath(*parts)
    if not path.is_file():
        here = sorted(p.name for p in index.parent.iterdir() if p.suffix == path.suffix)
        raise UserError(
            f'{index} names the shard {name}, which is missing. Beside it are: '
            f'{", ".join(here) or "no such files"}. Fetch the missing one into {index.parent}.'
        )
    return path


def check_agreement(path: Path, where: dict[str, str], shards: dict[str, Weights]) -> None:
    """Checks that each tensor is in the shard that the index says, and in no other."""
    wrong = []
    for name, shard in where.items():
        if name not in shards[shard].tensors:
            wrong.append(f'{name!r} is not in {shard}')
    for shard, weights in shards.items():
        wrong += [f'{name!r} is in {shard}' for name in weights.tensors if where.get(name) != shard]
    if wrong:
        more = f' and {len(wrong) - SHOWN} more' if len(wrong) > SHOWN else ''
        raise UserError(
            f'{path} and its shards disagree: {", ".join(wrong[:SHOWN])}{more}. They are of '
            'different models or versions: fetch all of them again.'
        )
