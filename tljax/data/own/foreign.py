"""`config.data.name='tfds:NAME'`, its features found by name and its rows examined."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tljax.data.own import prepare
from tljax.data.own.examine import Examined
from tljax.data.own.folder import common_shape
from tljax.data.own.pictures import plain_picture
from tljax.data.own.rows import BadRow, Ready, Row
from tljax.data.own.table import flaw, plain
from tljax.errors import UserError, nearest

SPLITS = ('train', 'validation', 'test')
KEYS = ('text', 'text_b', 'image', 'label', 'group')


def open_columns(config: Any, builder: Any) -> Any:
    """A TFDS set's features under the names that tasks know, prepared once more.

    Args:
      config: the section `config.data`: text (and text_b) or image, label and group name features.
        The set's own train, validation and test are kept, and no other.
      builder: of the set, prepared.

    Raises:
      UserError: no such feature, or of another kind; and as for `prepare.prepare`.
    """
    asked = {key: config[key] for key in KEYS if config[key]}
    content = [key for key in ('text', 'image') if key in asked]
    if len(content) != 1 or 'label' not in asked:
        raise UserError(
            f'config.data.name={config.name!r}: to take features by name, set data.text or '
            f'data.image, and data.label; {", ".join(asked)} is set.'
        )
    check_kinds(config, builder, asked)
    stat = (Path(builder.data_path) / 'dataset_info.json').stat()
    stamp = prepare.stamp_of(config, (), [builder.info.full_name, stat.st_size, stat.st_mtime_ns])
    config = config.copy_and_resolve_references()
    config.dir = config.name  # what messages name it by
    return prepare.prepare(config, stamp, lambda kept: columns_ready(config, builder, asked))


class Stored:
    """Some features of a split's rows, as they are stored, by row."""

    def __init__(self, builder: Any, split: str, names: tuple[str, ...], encoded: str):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.decode import DeserializeMethod

        raw = DeserializeMethod.RAW_BYTES
        self._raw = builder.as_data_source(split, deserialize_method=raw)
        features = builder.info.features
        self._parser = tfds.features.FeaturesDict({name: features[name] for name in names})
        self._skip = {encoded: tfds.decode.SkipDecoding()} if encoded else None

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._parser.deserialize_example_np(self._raw[row], decoders=self._skip)


def check_kinds(config: Any, builder: Any, asked: dict[str, str]) -> None:
    """Raises UserError unless the features are there, and of kinds that can be used."""
    import tensorflow_datasets as tfds

    has = dict(builder.info.features.items())
    for key, name in asked.items():
        if name not in has:
            raise UserError(
                f'config.data.{key}={name!r}: {config.name} has no such feature.'
                f'{nearest(name, has)}'
            )
    kinds: dict[str, Any] = {'image': tfds.features.Image, 'text': tfds.features.Text}
    for key in ('text', 'text_b', 'image'):
        kind = kinds[key.removesuffix('_b')]
        if key in asked and not isinstance(has[asked[key]], kind):
            raise UserError(
                f'config.data.{key}={asked[key]!r} of {config.name} is '
                f'{type(has[asked[key]]).__name__}, not {kind.__name__}.'
            )


def columns_ready(config: Any, builder: Any, asked: dict[str, str]) -> Ready:
    """All rows of the set's splits, each read once; images are read again where they are needed."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    kind = 'image' if 'image' in asked else 'text'
    sources = {
        split: Stored(builder, split, tuple(asked.values()), asked.get('image', ''))
        for split in SPLITS
        if split in builder.info.splits
    }
    words = {key: words_of(features[name]) for key, name in asked.items() if key != 'image'}
    rows: list[Row] = []
    bad: list[str] = []
    digests: list[str] = []
    texts: list[dict[str, str]] = []
    shapes: list[Examined] = []
    for split, source in sources.items():
        for i in range(len(source)):
            stored = source[i]
            values = {key: word(stored[asked[key]]) for key, word in words.items()}
            content = {k: v for k, v in values.items() if k in ('text', 'text_b')}
            why, raw = flaw(values), '\0'.join(content.values()).encode()
            if kind == 'image' and not why:
                why, raw = looked_at(stored[asked['image']], config.bits, shapes)
            rows.append(
                Row(f'{split}[{i}]', values['label'], split, values.get('group', ''), path=str(i))
            )
            bad.append(why)
            digests.append(hashlib.sha256(raw).hexdigest())
            texts.append(content)

    def example(index: int) -> dict[str, Any]:
        if kind == 'text':
            return dict(texts[index])
        row = rows[index]
        encoded = sources[row.split][int(row.path)][asked['image']]
        return {'image': plain_picture(encoded, config.bits).encoded}

    image = {'image': tfds.features.Image(shape=common_shape(shapes))} if kind == 'image' else {}
    text = {key: tfds.features.Text() for key in asked if key in ('text', 'text_b')}
    return Ready(rows, bad, digests, {**image, **text}, example)


def looked_at(encoded: bytes, bits: int, shapes: list[Examined]) -> tuple[str, bytes]:
    """Why an image cannot be used, and its bytes; its shape is added to `shapes`."""
    try:
        shapes.append(Examined('', shape=plain_picture(encoded, bits).shape))
    except BadRow as error:
        return str(error), encoded
    return '', encoded


def words_of(feature: Any) -> Callable[[Any], str]:
    """What turns a feature's values into words: of a class its name, '' where it is -1."""
    names = getattr(feature, 'names', None)
    if names is None:
        return lambda value: plain(value.item() if hasattr(value, 'item') else value)
    return lambda value: names[int(value)] if int(value) >= 0 else ''
