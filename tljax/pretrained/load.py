"""From a URI to a model that holds the published weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from tljax import models, trees
from tljax.errors import UserError
from tljax.pretrained import shelf
from tljax.pretrained.identify import Found, identify, shapes_of
from tljax.pretrained.locations import locate
from tljax.pretrained.readers import open_weights
from tljax.pretrained.shelf import Card


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
    found = identify(open_weights(path), model)
    if described.name == shelf.UNKNOWN:
        logging.warning(
            'Source %s has no card: its licence, training data and input are unknown here. Check '
            'that config.data.mean, .std and .image_size are what it was trained with.',
            uri,
        )
    return found, completed(described, uri, digest, found)


def completed(card: Card, uri: str, digest: str, found: Found) -> Card:
    """The card, or for an unknown source one with what the file itself tells."""
    if card.name != shelf.UNKNOWN:
        return card
    return dataclasses.replace(
        card,
        uris=(f'{uri}#sha256={digest}' if digest and '#' not in uri else uri,),
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

    The number of heads, an activation or an epsilon leave the shapes as they are, so a wrong one
    would go unnoticed. What shows in the shapes is told, and left to surgery.

    Args:
      found: the source.
      config: `config.model` of the target.

    Raises:
      UserError: names the arguments that differ.
    """
    told = found.arguments.keys() - set(found.guessed)
    settled = sorted(told & set(config.keys()))
    unlike = [key for key in settled if plain(config[key]) != plain(found.arguments[key])]
    hidden = [key for key in unlike if not shows(found, key, config[key])]
    if hidden:
        needed = ' '.join(f'--config.model.{key}={found.arguments[key]!r}' for key in hidden)
        raise UserError(
            f'config.model differs from the source in what its shapes do not show. The weights '
            f'of {found.weights.files[0]} compute what they were trained to compute only with {needed} '
            f'(not {", ".join(repr(config[key]) for key in hidden)}).'
        )
    for key in unlike:
        logging.warning(
            'config.model.%s is %r, the source has %r.', key, config[key], found.arguments[key]
        )


def shows(found: Found, key: str, value: Any) -> bool:
    """Whether a model's shapes are others with another value of one argument."""
    try:
        shapes = [
            shapes_of(found.model, arguments, found.outputs or 2, found.example)
            for arguments in (found.arguments, {**found.arguments, key: value})
        ]
    except UserError:
        return True
    return shapes[0] != shapes[1]


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
