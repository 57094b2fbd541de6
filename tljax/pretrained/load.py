"""From a URI to a model that holds the published weights."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from tljax import models, trees
from tljax.errors import UserError
from tljax.pretrained import shelf
from tljax.pretrained.attempt import shapes_of
from tljax.pretrained.identify import Found, identify
from tljax.pretrained.locations import locate
from tljax.pretrained.readers import open_weights
from tljax.pretrained.shelf import Card

# By what a model reads.
INPUT = {
    'audio': 'config.data.rate is',
    'image': 'config.data.mean, .std and .image_size are',
    'tokens': 'config.data.tokenizer is',
}


def find(uri: str, model: str = '', card: str = '', *, quiet: bool = False) -> tuple[Found, Card]:
    """Finds and identifies weights; their numbers are not read yet.

    Args:
      uri: a path, 'package:NAME', 'hf://ORG/NAME' or 'url:https://...#sha256=HEX'.
      model: the architecture that is wanted; '' takes any.
      card: name of its card, or path of one; '' finds it by the uri.
      quiet: no progress bar for a download.

    Raises:
      UserError: there is no such file, it is damaged, or fits no known naming scheme.
      RunError: a download failed.
    """
    described = shelf.find(uri, card)
    path = locate(uri, quiet=quiet)
    digest = '' if card else shelf.check_digest(described, uri, path)
    weights = open_weights(path)
    found = identify(weights, model)
    if described.name == shelf.UNKNOWN:
        described = shelf.card_in(weights.metadata) or described
    if described.name == shelf.UNKNOWN:
        logging.warning(
            'Source %s has no card: its licence, training data and input are unknown here. Check '
            'that %s what it was trained with.',
            uri,
            input_keys(found.example),
        )
    found = settled(found, described)
    if found.guessed:
        logging.warning('Source %s does not tell everything. %s', uri, guesses(found))
    return found, completed(described, uri, digest, found)


def input_keys(example: Iterable[str]) -> str:
    """Which keys of `config.data` must be as the source had them, by what its model reads.

    >>> input_keys(['mask', 'tokens'])
    'config.data.tokenizer is'
    """
    return next(INPUT[part] for part in example if part in INPUT)


def guesses(found: Found) -> str:
    """Words on what was guessed of a model; '' if nothing was."""
    values = ', '.join(f'{key}={found.arguments[key]!r}' for key in found.guessed)
    return f'Guessed: {values}.' if values else ''


def settled(found: Found, card: Card) -> Found:
    """What was found, with its card's word where the file leaves something open.

    Raises:
      UserError: the card is of another architecture, or of other arguments than the file tells.
    """
    if card.architecture not in (shelf.UNKNOWN, found.model):
        raise UserError(
            f'{found.weights.files[0]} is a {found.model}, but its card {card.name!r} is that of a '
            f'{card.architecture}: set config.source.card to another, or leave it out.'
        )
    for key, value in card.arguments.items():
        is_told = key in found.arguments and key not in found.guessed
        if is_told and plain(found.arguments[key]) != plain(value):
            raise UserError(
                f'{found.weights.files[0]} has {key}={found.arguments[key]!r}, but its card '
                f'{card.name!r} says {value!r}: set config.source.card to another, or leave it out.'
            )
    said = {key: card.arguments[key] for key in found.guessed if key in card.arguments}
    return dataclasses.replace(
        found,
        arguments={**found.arguments, **said},
        guessed=tuple(key for key in found.guessed if key not in said),
    )


def completed(card: Card, uri: str, digest: str, found: Found) -> Card:
    """The card, or for an unknown source one with what the file itself tells."""
    hashed = f'{uri}#sha256={digest}' if digest and '#' not in uri else uri
    if card.name != shelf.UNKNOWN:
        return dataclasses.replace(card, source=hashed)
    return dataclasses.replace(
        card,
        source=hashed,
        title=f'{found.model} of {uri}',
        architecture=found.model,
        arguments=found.arguments,
        scheme=found.scheme,
        classes=found.outputs,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A published model, read into memory.

    Attributes:
      found: which architecture it is, and how its names were read.
      leaves: path -> float32 array, parameters and batch statistics together.
      card: where it comes from.
    """

    found: Found
    leaves: dict[str, np.ndarray]
    card: Card

    def module(self, **arguments: Any) -> Any:
        """The NNX module in evaluation mode; call it, or its `features`, with a batch.

        Args:
          arguments: of the model, where others than the file's are wanted (`dtype`, `pool`, ...).
            Leaves that the file lacks, such as a head, are freshly initialised.
        """
        found = self.found
        config = {'name': found.model, **found.arguments, **arguments}
        model = models.build(config, found.example, found.outputs or 2)
        variables = {
            kind: trees.map_with_path(lambda path, leaf: self.leaves.get(path, leaf), tree)
            for kind, tree in model.init(jax.random.key(0)).items()
        }
        return models.merge(model.graph(train=False), variables['params'], variables['batch_stats'])


def load(uri: str, model: str = '', card: str = '', *, quiet: bool = False) -> Pretrained:
    """Reads a published model; arguments and errors as for `find`."""
    found, described = find(uri, model, card, quiet=quiet)
    return Pretrained(found, found.read(), described)


def check_arguments(found: Found, config: Mapping[str, Any]) -> None:
    """Checks that a target's model computes what the source computes, where shapes can't show it.

    Args:
      found: the source.
      config: `config.model` of the target.

    Raises:
      UserError: names the arguments that differ.
    """
    told = {k: v for k, v in found.arguments.items() if k not in found.guessed}
    where = str(found.weights.files[0])
    check_same(found.model, told, config, found.example, found.outputs or 2, where)


def check_same(
    model: str,
    source: Mapping[str, Any],
    config: Mapping[str, Any],
    example: Mapping[str, jax.ShapeDtypeStruct],
    outputs: int,
    where: str,
) -> None:
    """The same for a source whose model's arguments are known.

    The number of heads, an activation or an epsilon leave the shapes as they are, so a wrong one
    would go unnoticed. What shows in the shapes is told, and left to surgery.

    Args:
      model: the name of both.
      source: arguments of the source's model.
      config: `config.model` of the target.
      example: of what such a model reads.
      outputs: size of a head.
      where: what to call the source.

    Raises:
      UserError: names the arguments that differ.
    """
    full = {**models.arguments(model), **config}
    keys = [key for key in sorted(source) if key in full and not free(key)]
    unlike = [key for key in keys if plain(full[key]) != plain(source[key])]
    base = {**full, **source}
    base.pop('name')

    def shows(key: str) -> bool:
        try:
            one, other = (
                shapes_of(model, {**base, key: value}, outputs, example)
                for value in (source[key], full[key])
            )
        except UserError:
            return True
        return one != other

    hidden = [key for key in unlike if not shows(key)]
    if hidden:
        needed = ' '.join(f'--config.model.{key}={source[key]!r}' for key in hidden)
        raise UserError(
            'config.model differs from the source in what its shapes do not show. The weights of '
            f'{where} compute what they were trained to compute only with {needed} '
            f'(not {", ".join(repr(full[key]) for key in hidden)}).'
        )
    for key in unlike:
        logging.warning('config.model.%s is %r, the source has %r.', key, full[key], source[key])


def free(key: str) -> bool:
    """Whether an argument changes how a model is trained or rounded, and not what it computes."""
    return 'drop' in key or key in ('dtype', 'zero_init_last')


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
