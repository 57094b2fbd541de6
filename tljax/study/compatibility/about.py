"""What a source's card tells, whether it is of the shelf or of a model trained here."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tljax.pretrained.inputs import KEYS
from tljax.pretrained.shelf import UNKNOWN

MODALITIES = {'image': 'image', 'tokens': 'text', 'audio': 'audio'}  # of the parts of an example


@dataclasses.dataclass(frozen=True)
class About:
    """A source, as far as its card tells.

    Attributes:
      name: of the source.
      modality: 'image', 'text', 'audio', or 'unknown'.
      input: what its inputs were like: the keys of `config.data` that a card has, or `vocabulary`,
        `positions`, `sampling_rate`; those that are not known are not there.
      licence: as its publisher states it, or 'unknown'; '' is a model trained here from scratch.
      training_data: what it has seen, in words.
      label_names: of its classes, in the order of its head; () where they are not listed.
      classes: how many; 0 is none, or not known.
      own: whether it was trained here.
    """

    name: str
    modality: str = UNKNOWN
    input: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    licence: str = UNKNOWN
    training_data: str = UNKNOWN
    label_names: tuple[str, ...] = ()
    classes: int = 0
    own: bool = False


def about(card: Mapping[str, Any] | None) -> About:
    """What a card tells.

    Args:
      card: of `tljax.train.sources.load(...).card`: the JSON of a `tljax.pretrained.Card`, or the
        card.json of a model of our own; None or {} tells nothing.

    >>> about({'name': 'a', 'classes': 2, 'class_names': 'cat, dog'}).label_names
    ('cat', 'dog')
    """
    if not card:
        return About('the source', licence='')
    if 'config' in card:
        return of_own(card)
    count = int(card.get('classes') or 0)
    name = str(card.get('name', UNKNOWN))
    told = {key: value for key, value in card.get('input', {}).items() if value != UNKNOWN}
    return About(
        name=str(card.get('title', name)) if name == UNKNOWN else name,
        modality=str(card.get('modality', UNKNOWN)),
        input=told,
        licence=str(card.get('licence') or UNKNOWN),
        training_data=str(card.get('training_data') or UNKNOWN),
        label_names=names_in(str(card.get('class_names') or ''), count),
        classes=count,
    )


def of_own(card: Mapping[str, Any]) -> About:
    """The same, of a model trained here: its input is what its own config had."""
    data = card['config'].get('data', {})
    kinds = [MODALITIES[part] for part in card.get('example', {}) if part in MODALITIES]
    names = tuple(card.get('label_names') or ())
    source = card.get('source')
    seen = [str(card.get('data') or UNKNOWN)]
    seen += [about(source).training_data] if source else []
    channels = card.get('example', {}).get('image', (0,))[-1]
    told = {key: data[key] for key in KEYS if key in data}
    if channels:
        told |= {'channels': channels, 'image_size': card['example']['image'][0]}
    return About(
        name=str(card.get('title') or card.get('data') or 'a model trained here'),
        modality=kinds[0] if kinds else UNKNOWN,
        input=told,
        licence=about(source).licence if source else '',
        training_data='; before that '.join(seen),
        label_names=names,
        classes=len(names),
        own=True,
    )


def names_in(text: str, count: int) -> tuple[str, ...]:
    """The class names that a card lists, if it lists as many as there are classes.

    >>> names_in('airplane, automobile', 2), names_in("ImageNet-1k's, in the usual order", 1000)
    (('airplane', 'automobile'), ())
    """
    names = tuple(name for name in re.split(r'\s*,\s*', text.strip()) if name)
    return names if count and len(names) == count else ()
