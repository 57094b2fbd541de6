"""What a source's card says of its inputs, applied to the target's data."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax import models
from tljax.config import checking
from tljax.data.text import tokenizer
from tljax.data.text.choosing import DEFAULT
from tljax.errors import RunError, UserError
from tljax.pretrained import shelf
from tljax.pretrained.locations import is_remote, locate
from tljax.pretrained.shelf import Card
from tljax.transfer.policies import is_from_scratch

IMAGE = ('image_size', 'resize', 'interpolation', 'channels', 'mean', 'std')
TEXT = ('tokenizer', 'length')
KEYS = (*IMAGE, *TEXT)
RECIPE = 'config:'
TRAINED = 'bpe('  # a tokenizer that belongs to a recipe's own texts


def declared(card: Card, data: Any) -> dict[str, Any]:
    """The values of `config.data` that a card asks for, at the target's image size if it has one.

    What it says of a tokenizer are words, which are no file to read.

    Args:
      card: of the source.
      data: the section `config.data` of the target.

    >>> from tljax.config import default
    >>> card = Card('small', input={'image_size': 32, 'resize': 36, 'mean': [0.5]})
    >>> data = default().data
    >>> declared(card, data)
    {'image_size': 32, 'resize': 36, 'mean': (0.5,)}
    >>> data.image_size = 64
    >>> declared(card, data)['resize']
    72
    """
    asked = {
        key: plain(value)
        for key, value in card.input.items()
        if key in KEYS and key != 'tokenizer' and value != shelf.UNKNOWN
    }
    if data.image_size and asked.get('resize') and asked.get('image_size'):
        asked['resize'] = round(asked['resize'] * data.image_size / asked['image_size'])
    return asked


def asked_by_source(config: ConfigDict) -> dict[str, Any]:
    """The values of `config.data` that the source of a config asks for.

    A model of our own asks for what its own config had. A tokenizer is asked for only where it can
    be had: one that was trained on the source's own texts is in a file beside the source's weights,
    or is trained again on those.

    Raises:
      UserError: there is no card of the name `config.source.card`, or no such recipe.
    """
    uri = config.source.uri
    if not uri:
        return {}
    if uri.startswith(RECIPE):
        other = applied(config_lib.load(uri.removeprefix(RECIPE)))
        asked = {key: other.data[key] for key in KEYS}
        if own_tokenizer(other):
            asked['tokenizer'] = uri  # told apart by the recipe, wherever its model is kept
        return asked
    local, own = Path(uri).expanduser(), model_at(uri)
    if own:
        return asked_by_model(own / 'card.json') | beside(own)
    card = shelf.find(uri, config.source.card)
    if card.name == shelf.UNKNOWN and local.exists():
        card = card_of_export(local) or card
    is_text = card.modality == 'text' or models.reads_tokens(config.model.name)
    found = {} if is_remote(uri) and not is_text else beside(locate(uri, quiet=True))
    return {**declared(card, config.data), **found}


def own_tokenizer(config: ConfigDict) -> bool:
    """Whether a recipe's tokenizer is trained on its own texts."""
    asked = config.data.tokenizer or (DEFAULT if models.reads_tokens(config.model.name) else '')
    return asked.startswith(TRAINED)


def beside(place: Path) -> dict[str, str]:
    """The tokenizer in the folder of a source's weights."""
    file = tokenizer.beside(place)
    return {'tokenizer': str(file)} if file else {}


def card_of_export(path: Path) -> Card | None:
    """The card inside a file that tljax exported."""
    from tljax.pretrained.readers import open_weights

    try:
        return shelf.card_in(open_weights(path).metadata)
    except (UserError, RunError):
        return None  # told where the weights are read


def model_at(uri: str) -> Path | None:
    """The directory of our own model that a path names: itself, or `model` in it."""
    path = Path(uri).expanduser()
    found = (p for p in (path, path / 'model') if (p / 'card.json').exists())
    return next(found, None)


def asked_by_model(path: Path) -> dict[str, Any]:
    """The same, for a model of our own with this card.json."""
    try:
        data = json.loads(path.read_text(encoding='utf-8'))['config']['data']
        asked = {key: plain(data[key]) for key in KEYS if key in data}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}  # without a config, or damaged, which is told where the model is loaded
    if str(asked.get('tokenizer', '')).startswith((TRAINED, RECIPE)):
        # On other texts the same words would make another; and a recipe is a program, which only
        # the user's own config may name.
        del asked['tokenizer']
    return asked


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def applied(config: ConfigDict) -> ConfigDict:
    """The config with what its source says of its input, where the config says nothing.

    Both arms read the same config, so they see the same pictures.

    Args:
      config: of `tljax.config.resolve`; not changed.

    Raises:
      UserError: as for `asked_by_source` and `check_tokenizer`, or the source's card asks for what
        no config may have.
    """
    default, full = config_lib.default().data, config.copy_and_resolve_references()
    said = {key for key in KEYS if config.data[key] != default[key]}
    if said & {'mean', 'std'}:
        said |= {'mean', 'std'}  # they belong together
    where = f'the card of {config.source.uri}'
    for key, value in asked_by_source(config).items():
        if key not in said:
            checking.set_value(full.data, key, value, f'data.{key}', where)
    checking.check_each(full, where)
    check_tokenizer(full)
    return full


def check_tokenizer(config: ConfigDict) -> None:
    """Checks that token numbers mean to the target what they mean to its source.

    Args:
      config: with what its source asks for.

    Raises:
      UserError: they would be those of a tokenizer trained on the target's texts.
    """
    uri, policy = config.source.uri, config_lib.plain(config)['transfer']['policy']
    if not uri or is_from_scratch(policy) or config.data.tokenizer:
        return
    if not models.reads_tokens(config.model.name):
        return
    place = model_at(uri) or locate(uri, quiet=True)
    folder = place if place.is_dir() else place.parent
    *names, last = tokenizer.FILES
    raise UserError(
        f'config.data.tokenizer is empty, and that of the source {uri!r} is not known: {folder} '
        f'has no {", ".join(names)} or {last}. Put it there, or name it in config.data.tokenizer. '
        f"{DEFAULT!r} there, with 'backbone/token/.*' in config.transfer.reset, learns new tokens "
        'on purpose.'
    )


def differences(config: ConfigDict, card: Card) -> list[str]:
    """Where the target's data differs from what the source's card says, a line each."""
    return [
        f'data.{key} is {config.data[key]!r}, the card says {value!r}'
        for key, value in declared(card, config.data).items()
        if config.data[key] != value
    ]
