"""Models with injected leaves: told by a card or a file, and taken as sources."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from tljax import models, trees
from tljax.errors import UserError
from tljax.models import Model
from tljax.models.build import streams
from tljax.transfer import peft

KINDS = {'image': np.uint8, 'audio': np.float32}  # of an example's parts; others are int32
Leaves = Mapping[str, Any]


def remedy(pairs: Any) -> str:
    """The config that injects so."""
    rules = [tuple(pair) for pair in pairs if pair[0]]
    parts = [f'config.transfer.policy={text!r}' for pattern, text in pairs if not pattern]
    return ' and '.join(parts + ([f'config.transfer.inject={rules!r}'] if rules else []))


def chosen_by(card: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the run injected that left a model, by its card."""
    config = card.get('config') or {}
    transfer = config.get('transfer') or {}
    if not (config.get('source') or {}).get('uri'):
        return ()
    return peft.chosen(transfer.get('policy'), transfer.get('inject') or ())


def model_of(about: Mapping[str, Any]) -> Model:
    """The model with injected leaves that a file or a card tells of.

    Args:
      about: `model`, `example` (shapes), `outputs` and `injected`.
    """
    example = {
        name: jax.ShapeDtypeStruct(tuple(shape), KINDS.get(name, np.int32))
        for name, shape in about['example'].items()
    }
    pairs = [(pattern, text) for pattern, text in about['injected']]
    return models.build(about['model'], example, about['outputs'], peft.injector(pairs))


def of_card(card: Mapping[str, Any]) -> Model | None:
    """The model with injected leaves that a card tells of; None if nothing was injected.

    Raises:
      UserError: it does not tell enough.
    """
    pairs = chosen_by(card)
    if not pairs:
        return None
    try:
        outputs = card.get('outputs') or len(card['label_names'])
        return model_of({**card, 'injected': pairs, 'outputs': outputs})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'The card of a model with injected leaves does not tell what model it is ({error!r}). '
            'Train it again, or fetch another copy of it.'
        ) from error


def source_leaves(leaves: Leaves, card: Mapping[str, Any], target: Model) -> dict[str, Any]:
    """A model's leaves as a source: injected ones are kept where the target has the same.

    Elsewhere they are merged into the weights, so that the source computes what it did.

    Args:
      leaves: path -> array or shape.
      card: the model's.
      target: the target's model.

    Raises:
      UserError: the target hasn't the same, and they can't be merged.
    """
    own = of_card(card)
    if own is None:
        return dict(leaves)
    shapes = flat(target.shapes())
    fits = [
        path in shapes and tuple(shapes[path].shape) == tuple(leaves[path].shape)
        for path in own.outline().injected
    ]
    if all(fits) and same_injected(own, target):
        return dict(leaves)
    try:
        return without_injected(own, leaves)
    except UserError as error:
        raise UserError(
            f'config.source.uri: {error} Inject the same here: {remedy(chosen_by(card))}.'
        ) from error


def same_injected(own: Model, target: Model) -> bool:
    """Whether injected leaves of a model mean the same in another one, if their shapes fit."""
    there = treatments(target)
    return all(there.get(path) == kind for path, kind in treatments(own).items())


def treatments(model: Model) -> dict[str, tuple[type, float | None]]:
    """By path of each module with injected leaves, its class and what no shape of them shows."""
    module = nnx.eval_shape(lambda: model.make(streams(jax.random.key(0))))
    return {
        '/'.join(map(str, keys)): (type(child), getattr(child, 'lora_scale', None))
        for keys, child in nnx.iter_modules(module)
        if any(type(value) is peft.Injected for value in vars(child).values())
    }


def without_injected(model: Model, leaves: Leaves) -> dict[str, Any]:
    """Leaves, or their shapes, with the injected ones merged into the weights."""
    kinds = {kind: trees.flatten(tree) for kind, tree in model.shapes().items()}
    variables = {
        kind: trees.unflatten({path: leaves[path] for path in paths})
        for kind, paths in kinds.items()
    }
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves.values()):
        return flat(jax.eval_shape(lambda values: peft.merge(model, values), variables))
    return flat(peft.merge(model, variables))


def flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and batch statistics as one flat world of paths."""
    return trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
