"""Small networks as shapes or arrays for surgery, and the problems that a plan is refused with."""

import re
from typing import Any

import jax
import numpy as np
import pytest

from tljax.errors import UserError
from tljax.transfer import plan

TITLE = 'The source does not fit the target: '


def shape(*sizes: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def array(seed: int, *sizes: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=sizes).astype(np.float32)


def net(
    classes: int = 10, channels: int = 3, prefix: str = 'backbone'
) -> dict[str, jax.ShapeDtypeStruct]:
    """The leaves of a small network: a convolution, its batch statistics, a head."""
    return {
        f'{prefix}/conv/bias': shape(8),
        f'{prefix}/conv/kernel': shape(3, 3, channels, 8),
        f'{prefix}/norm/mean': shape(8),
        'head/bias': shape(classes),
        'head/kernel': shape(8, classes),
    }


def arrays(leaves: dict[str, jax.ShapeDtypeStruct], seed: int) -> dict[str, np.ndarray]:
    """Other numbers for each leaf."""
    return {path: array(seed + i, *leaf.shape) for i, (path, leaf) in enumerate(leaves.items())}


def refusal(source: Any, target: Any, *args: Any, **rules: Any) -> list[str]:
    """The problems that a plan is refused with, one string each."""
    with pytest.raises(UserError) as caught:
        plan(source, target, *args, **rules)
    title, *lines = str(caught.value).split('\n')
    count = 'problem' if len(lines) == 1 else 'problems'
    assert re.fullmatch(rf'{TITLE}\d+ {count}\.', title)
    assert all(line.startswith('- ') for line in lines)
    if not lines[-1].endswith(' more.'):
        assert title == f'{TITLE}{len(lines)} {count}.'
    return [line.removeprefix('- ') for line in lines]
