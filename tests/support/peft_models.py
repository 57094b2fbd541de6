"""Small models with injected leaves, called as functions of their variables."""

from typing import Any

import jax
import numpy as np
import small_models

from tljax import models, trees
from tljax.transfer import peft


def build(name: str, method: str = '', pattern: str = '', outputs: int = 3) -> models.Model:
    """The small model of an architecture; '' for the method is the plain one."""
    recipe, example = small_models.SMALL[name]
    shapes = {key: jax.ShapeDtypeStruct(shape, dtype) for key, (shape, dtype) in example.items()}
    inject = peft.injector([(pattern, method)]) if method else None
    return models.build(recipe, shapes, outputs, inject)


def forward(model: models.Model, variables: Any, batch: Any) -> np.ndarray:
    """What it gives in evaluation."""
    graph = model.graph(train=False)

    def call(variables, batch):
        return models.merge(graph, variables['params'], variables['batch_stats'])(batch)

    return np.asarray(jax.jit(call)(variables, batch))


def over(model: models.Model, source: Any, seed: int = 0) -> Any:
    """The model's fresh injected leaves, and the source's."""
    injected = model.outline().injected

    def fresh(key: jax.Array) -> Any:
        params = trees.flatten(model.init(key)['params'])
        return {path: params[path] for path in injected}

    params = {**jax.jit(fresh)(jax.random.key(seed)), **trees.flatten(source['params'])}
    return {**source, 'params': trees.unflatten(params)}


def moved(model: models.Model, variables: Any, seed: int = 1) -> Any:
    """The variables with the injected leaves moved at random."""
    rng, injected = np.random.default_rng(seed), model.outline().injected

    def move(path: str, leaf: Any) -> Any:
        noise = 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype)
        return leaf + noise if path in injected else leaf

    return {**variables, 'params': trees.map_with_path(move, variables['params'])}
