"""Every architecture, small enough for tests that run through all of them."""

from typing import Any

import jax
import numpy as np
import parity_support
import pytest

from tljax import models, trees

TRANSFORMER = dict(width=16, layers=3, heads=2, hidden=24)
CONVS = dict(conv_widths=(8, 8), conv_kernels=(10, 3), conv_strides=(5, 2))
# name -> (recipe, shape and dtype of each part of an example)
SMALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'convnet': (
        dict(name='convnet', widths=(4, 8), hidden=12, norm='batch'),
        {'image': ((8, 8, 3), np.float32)},
    ),
    'alexnet': (dict(name='alexnet', dropout=0.0), {'image': ((63, 63, 3), np.float32)}),
    'resnet': (dict(name='resnet', depth=18), {'image': ((32, 32, 3), np.float32)}),
    'cifar_resnet': (dict(name='cifar_resnet', depth=8), {'image': ((8, 8, 3), np.float32)}),
    'bit': (dict(name='bit'), {'image': ((32, 32, 3), np.float32)}),
    'squeezenet': (dict(name='squeezenet', dropout=0.0), {'image': ((47, 47, 3), np.float32)}),
    'efficientnet_lite': (
        dict(name='efficientnet_lite', dropout=0.0),
        {'image': ((32, 32, 3), np.float32)},
    ),
    'vit': (dict(name='vit', patch=4, **TRANSFORMER), {'image': ((8, 8, 3), np.float32)}),
    'bert': (
        dict(name='bert', vocabulary=30, positions=12, dropout=0.0, **TRANSFORMER)
        | dict(attention_dropout=0.0),
        {'tokens': ((9,), np.int32), 'mask': ((9,), np.int32)},
    ),
    'gpt2': (
        dict(name='gpt2', vocabulary=30, positions=12, dropout=0.0, pool='last', **TRANSFORMER)
        | dict(attention_dropout=0.0),
        {'tokens': ((9,), np.int32), 'mask': ((9,), np.int32)},
    ),
    'wav2vec2': (
        dict(name='wav2vec2', pool='mean', position_kernel=4, position_groups=2, dropout=0.0)
        | dict(attention_dropout=0.0, **CONVS, **TRANSFORMER),
        {'audio': ((200,), np.float32), 'mask': ((200,), np.int32)},
    ),
}


def build(name: str, outputs: int = 3, **changes: Any) -> models.Model:
    """The small model of an architecture."""
    recipe, example = SMALL[name]
    shapes = {key: jax.ShapeDtypeStruct(shape, dtype) for key, (shape, dtype) in example.items()}
    return models.build({**recipe, **changes}, shapes, outputs)


def batch_of(name: str, size: int = 4, seed: int = 0, outputs: int = 3) -> dict[str, np.ndarray]:
    """A batch for it, with labels; texts and sounds of different lengths."""
    rng = np.random.default_rng(seed)
    batch: dict[str, np.ndarray] = {}
    for key, (shape, dtype) in SMALL[name][1].items():
        if key == 'mask':
            lengths = rng.integers(shape[0] // 2, shape[0] + 1, size)
            batch[key] = (np.arange(shape[0]) < lengths[:, None]).astype(np.int32)
        elif dtype == np.int32:
            batch[key] = rng.integers(0, 30, (size, *shape)).astype(np.int32)
        else:
            batch[key] = rng.normal(size=(size, *shape)).astype(np.float32)
    batch['label'] = rng.integers(0, outputs, size).astype(np.int32)
    return batch


def scattered(model: models.Model, seed: int = 0) -> Any:
    """Variables none of which is where it makes no difference, such as a zero kernel.

    Not from the model's own initialisation: to compile that takes seconds for deep networks.
    """

    def drawn(path: str, leaf: Any) -> jax.Array:
        # Products of two such leaves add to each kernel: larger ones overflow in deep networks.
        scale = np.float32(0.1 if '/lora_' in path else 1)
        return jax.numpy.asarray(scale * parity_support.draw(path, leaf.shape, seed))

    return {kind: trees.map_with_path(drawn, tree) for kind, tree in model.shapes().items()}


def sampled(cases: Any, quick: Any = (), every: int = 4) -> list[Any]:
    """The parameters of a test over a matrix, most of it left out unless asked for.

    Args:
      cases: tuples; those in `quick` are always tried.
      every: of the others each so-many-th is slow, and the rest `pytest -m matrix`.
    """
    params = []
    for number, case in enumerate(cases):
        mark = pytest.mark.matrix if number % every else pytest.mark.slow
        params.append(pytest.param(*case, marks=[] if case in quick else mark))
    return params
