"""A config in other forms: plain, flat, and as what decides a run's result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from tljax import trees
from tljax.config.defaults import NOT_IN_FINGERPRINT, default


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Maps dotted keys to plain values (tuples become lists, as in JSON).

    >>> flat({'optim': {'lr': 0.1}, 'data': {'mean': (0.5,)}})
    {'data.mean': [0.5], 'optim.lr': 0.1}
    """
    leaves = trees.flatten(json.loads(json.dumps(plain(config))))
    return {path.replace('/', '.'): value for path, value in leaves.items()}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as nested plain dicts."""
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of everything in the config that decides the result.

    >>> a, b = default(), default()
    >>> b.train.save_every = 7
    >>> fingerprint(a) == fingerprint(b)
    True
    """
    keys = {k: v for k, v in flat(config).items() if k not in NOT_IN_FINGERPRINT and k != 'title'}
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each key that decides the result and differs.

    A key that the old config lacks, since tljax did not have it yet, counts as its default.

    >>> a, b = default(), default()
    >>> b.optim.lr = 0.5
    >>> differences(a, b)
    ['optim.lr: 0.001 -> 0.5']
    """
    before, after = flat(default()) | flat(old), flat(new)
    return [
        f'{key}: {before.get(key)!r} -> {after.get(key)!r}'
        for key in sorted(before.keys() | after.keys())
        if key not in NOT_IN_FINGERPRINT and key != 'title' and before.get(key) != after.get(key)
    ]
