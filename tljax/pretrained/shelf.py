"""The shelf of known open models: their cards, and which of them a source is.

A card says where a model comes from and what its inputs must be like. It is a file in `cards/`.
"""

import dataclasses
import functools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.errors import UserError, nearest
from tljax.pretrained.locations import HUB, PACKAGE, URL, sha256_of

CARDS = Path(__file__).parent / 'cards'
UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True, eq=False)
class Card:
    """What is known of a model.

    Attributes:
      name: what `config.source.card` calls it.
      title: in words.
      task: what it was trained for.
      modality: 'image', 'text' or 'audio'.
      architecture: of `tljax.models`, with its `arguments`.
      scheme: of its weights' names.
      uris: where they live, as `config.source.uri` takes them, or plain file names; behind each
        '#sha256=' and the file's sha256, or as many of its first digits as are known, if any.
      licence: as its publisher states it.
      training_data: what it has seen.
      input: what target data should be like: `image_size`, `resize`, `interpolation`, `mean`, `std`
        for pictures, a tokenizer for text, `sampling_rate` for sound.
      classes: number of them, where there are any.
      class_names: where they are listed.
      metrics: published ones: name, value, dataset, source.
      notes: anything else.
      source: the uri that was read, with its sha256; not in a card's file.
    """

    name: str
    title: str = UNKNOWN
    task: str = UNKNOWN
    modality: str = UNKNOWN
    architecture: str = UNKNOWN
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scheme: str = UNKNOWN
    uris: tuple[str, ...] = ()
    licence: str = UNKNOWN
    training_data: str = UNKNOWN
    input: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    classes: int = 0
    class_names: str = ''
    metrics: tuple[Mapping[str, Any], ...] = ()
    notes: str = ''
    source: str = ''

    def describes(self, uri: str) -> bool:
        """Whether the weights at a URI are, by their name, those of this card."""
        return any(key_of(known) == key_of(uri) for known in self.uris)

    def digests(self, file: str) -> list[str]:
        """The sha256, or their first digits, that the weights at a URI may have."""
        known = (uri.partition('#sha256=') for uri in self.uris)
        return [digest for uri, _, digest in known if digest and key_of(uri) == key_of(file)]

    def to_json(self) -> dict[str, Any]:
        """For a model's card.json."""
        return {**dataclasses.asdict(self), 'uris': list(self.uris), 'metrics': list(self.metrics)}


def key_of(uri: str) -> tuple[str, str]:
    """What two names of the same weights share.

    >>> key_of('url:https://a.org/x/resnet18-f37072fd.pth#sha256=...') == key_of(
    ...     'downloads/resnet18-f37072fd.pth')
    True
    >>> key_of('hf://org/name@main')
    ('hf://', 'org/name')
    """
    uri = uri.partition('#')[0]
    if uri.startswith(HUB):
        return HUB, uri.removeprefix(HUB).partition('@')[0]
    if uri.startswith(PACKAGE):
        return PACKAGE, uri.removeprefix(PACKAGE).partition('/')[0]
    return 'file', uri.removeprefix(URL).rstrip('/').rpartition('/')[2]


@functools.cache
def known() -> tuple[Card, ...]:
    """Every card, in the order of their names."""
    return tuple(read(path) for path in sorted(CARDS.glob('*.toml')))


def read(path: Path) -> Card:
    """Reads one card.

    Raises:
      UserError: it cannot be read, or has keys that no card has.
    """
    try:
        content = tomllib.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'The card {path} cannot be read: {error}.') from error
    fields = {field.name for field in dataclasses.fields(Card)}
    for key in content:
        if key not in fields:
            raise UserError(f'The card {path} has an unknown key {key!r}.{nearest(key, fields)}')
    if 'name' not in content:
        raise UserError(f'The card {path} has no name.')
    content['uris'] = tuple(content.get('uris', ()))
    content['metrics'] = tuple(content.get('metrics', ()))
    return Card(**content)


def find(uri: str, name: str = '') -> Card:
    """The card of a source; all 'unknown' if no card describes it.

    Args:
      uri: of `config.source.uri`.
      name: of `config.source.card`: a known card, or the path of a card's file; '' finds it by
        the uri.

    Raises:
      UserError: no card has that name.
    """
    if name.endswith('.toml'):
        return read(Path(name))
    if name:
        for card in known():
            if card.name == name:
                return card
        names = [card.name for card in known()]
        raise UserError(
            f'config.source.card: there is no card {name!r}.{nearest(name, names)} '
            '`launch.py sources` lists them; the path of a .toml file is one of your own.'
        )
    for card in known():
        if card.describes(uri):
            return card
    return Card(name=UNKNOWN, uris=(uri,))


def card_in(metadata: Mapping[str, Any]) -> Card | None:
    """The card that tljax wrote into a file that it exported, if there is one."""
    try:
        content = json.loads(metadata['tljax'])['card']
        fields = {field.name for field in dataclasses.fields(Card)}
        card = Card(**{key: content[key] for key in fields if key in content})
    except (ValueError, TypeError, KeyError):
        return None
    sound = isinstance(card.name, str) and isinstance(card.input, dict)
    return dataclasses.replace(card, uris=(), arguments={}) if sound else None


def check_digest(card: Card, uri: str, path: Path) -> str:
    """Checks that a file is the one that a card describes.

    Args:
      card: of the source.
      uri: of the source.
      path: where its weights were found.

    Returns:
      Its sha256, or '' for a directory.

    Raises:
      UserError: it has that file's name, but not its sha256.
    """
    if not path.is_file():
        return ''
    digest, promised = sha256_of(path), card.digests(uri)
    if promised and not any(digest.startswith(known) for known in promised):
        raise UserError(
            f'{path} has sha256 {digest}, but the file of this name that the card {card.name!r} '
            f'describes has {" or ".join(promised)}: it is damaged, or another file. Fetch it '
            'again; if it is meant, rename it, and give its card as config.source.card.'
        )
    return digest


def table(task: str = '', architecture: str = '') -> str:
    """The text of `launch.py sources`.

    Args:
      task: only cards whose task or modality contains these words; '' is all.
      architecture: likewise, of the architecture.

    Raises:
      UserError: no card is like that.
    """
    cards = [
        card
        for card in known()
        if task.lower() in f'{card.task} {card.modality}'.lower()
        and architecture.lower() in card.architecture.lower()
    ]
    if not cards:
        tasks = sorted({card.task for card in known()})
        kinds = sorted({card.architecture for card in known()})
        raise UserError(
            f'No known source has task {task!r} and architecture {architecture!r}. Tasks: '
            f'{", ".join(tasks)}. Architectures: {", ".join(kinds)}.'
        )
    return '\n\n'.join(entry(card) for card in cards)


def entry(card: Card) -> str:
    """One card in a few lines."""
    arguments = ', '.join(f'{key}={value!r}' for key, value in card.arguments.items())
    shape = ', '.join(f'{key} {value}' for key, value in card.input.items())
    best = '; '.join(
        f'{m["name"]} {m["value"]} on {m["dataset"]} ({m["source"]})' for m in card.metrics
    )
    lines = {
        'model': f'{card.architecture}({arguments})',
        'task': f'{card.task}, {card.classes} classes' if card.classes else card.task,
        'uri': '\n            '.join(card.uris),
        'licence': card.licence,
        'data': card.training_data,
        'input': shape,
        'published': best,
        'notes': card.notes,
    }
    return f'{card.name}: {card.title}\n' + '\n'.join(
        f'  {key + ":":10}{value}' for key, value in lines.items() if value
    )
